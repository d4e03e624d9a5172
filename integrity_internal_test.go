package s3sink

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
)

// digester is a store that verifies the checksum of each body, as S3 does.
type digester struct {
	spoil int // bodies to damage in transit

	mu     sync.Mutex
	stored int
	failed int
}

func (d *digester) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed < d.spoil {
		body[0] ^= 1
	}
	sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(body)))
	if sum == r.Header.Get("X-Amz-Checksum-Crc32") {
		d.stored++
		return &http.Response{StatusCode: http.StatusOK, Header: stored(), Body: http.NoBody, Request: r}, nil
	}
	d.failed++
	return &http.Response{
		StatusCode: http.StatusBadRequest, Request: r,
		Body: io.NopCloser(strings.NewReader("<Error><Code>BadDigest</Code></Error>")),
	}, nil
}

// bitFlip is a spool with a flipped bit in the object of this sequence.
type bitFlip struct {
	spool.Memory
	sequence uint64
}

func (b bitFlip) Object(seg *spool.Segment) io.ReadSeeker {
	r := b.Memory.Object(seg)
	if seg.Sequence != b.sequence {
		return r
	}
	object, err := io.ReadAll(r)
	if err != nil {
		panic(err)
	}
	object[len(object)/2] ^= 4
	return bytes.NewReader(object)
}

// Given a body that was damaged in transit, then the object is sent again.
func TestUpload_DamageInTransit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &digester{spoil: 3}
		sink := openInternal(t, store)
		if err := sink.Track(struct{}{}); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if store.stored != 1 || store.failed != 3 {
			t.Errorf("%d objects stored after %d refusals", store.stored, store.failed)
		}
	})
}

// Given an object that was damaged in memory, then it is set aside and named,
// and other objects are delivered.
func TestUpload_DamageInMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := new(digester)
		var log strings.Builder
		var told []Corrupt
		sink := openInternal(t, store, func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			c.Hooks.Corrupt = func(e Corrupt) { told = append(told, e) }
		})
		sink.batcher.spool = bitFlip{sequence: 2}
		flush := func(events int) error {
			for range events {
				if err := sink.Track(struct{}{}); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return sink.Flush(ctx)
		}
		for i, events := range []int{10, 7, 20} {
			if err := flush(events); errors.Is(err, ErrDamaged) != (i == 1) {
				t.Errorf("flush %d: %v", i+1, err)
			}
		}
		var lost *CloseError
		if err := sink.Close(t.Context()); !errors.As(err, &lost) || !errors.Is(err, ErrDamaged) || lost.Quarantined != 7 || Retryable(err) {
			t.Errorf("close: %v", err)
		}
		if st := sink.Stats(); st.Delivered != 30 || st.Quarantined != 7 || st.Attempts != 3 {
			t.Errorf("%+v", st)
		}
		if len(told) != 1 || told[0].Object.Events != 7 || told[0].Err.Code != "BadDigest" {
			t.Errorf("told of %+v", told)
		}
		if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "CRC-32") {
			t.Errorf("log: %s", &log)
		}
	})
}

// badReads is a spool in memory. The second time that an object is opened, its
// reads fail.
type badReads struct {
	spool.Memory
	opened int
}

func (b *badReads) Object(seg *spool.Segment) io.ReadSeeker {
	if b.opened++; b.opened == 2 {
		return unreadable{b.Memory.Object(seg)}
	}
	return b.Memory.Object(seg)
}

type unreadable struct{ io.ReadSeeker }

func (unreadable) Read([]byte) (int, error) { return 0, syscall.EIO }

// Given a disk that cannot be read while damage is looked for, then the object
// is not set aside.
func TestUpload_ReadErrorIsNotDamage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &digester{spoil: 1}
		sink := openInternal(t, store)
		sink.batcher.spool = new(badReads)
		if err := sink.Track(struct{}{}); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := sink.Stats(); store.stored != 1 || st.Delivered != 1 || st.Quarantined != 0 {
			t.Errorf("%d objects stored, %+v", store.stored, st)
		}
	})
}
