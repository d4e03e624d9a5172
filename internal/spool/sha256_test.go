package spool_test

import (
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/s3sink/s3sink/internal/deflate"
	"github.com/s3sink/s3sink/internal/spool"
)

// reads counts the reads of objects. While damaged is set, it changes the
// bytes.
type reads struct {
	spool.Spool
	count   int
	damaged bool
}

func (r *reads) Object(seg *spool.Segment) io.ReadSeeker {
	r.count++
	if r.damaged {
		return &flipped{r.Spool.Object(seg)}
	}
	return r.Spool.Object(seg)
}

type flipped struct{ io.ReadSeeker }

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.ReadSeeker.Read(p)
	if n > 0 {
		p[n/2] ^= 1
	}
	return n, err
}

// sealed returns a sealed segment in memory with one frame of size bytes.
func sealed(tb testing.TB, size int) *spool.Segment {
	tb.Helper()
	payload := make([]byte, size)
	seg := spool.NewSegment(spool.Header{Key: "key"})
	frame := spool.Frame{Frame: deflate.Frame{Payload: payload, CRC: crc32.ChecksumIEEE(payload)}, Events: 1}
	if err := (spool.Memory{}).Append(seg, frame); err != nil {
		tb.Fatal(err)
	}
	spool.Memory{}.Seal(seg, func() {})
	return seg
}

// Given a sealed segment, when SHA256 is called twice, then it reads the object
// once and returns its hash. Given bytes that changed before the first call,
// then it returns ErrChanged and keeps no hash.
func TestSHA256_ReadsObjectOnce(t *testing.T) {
	t.Parallel()
	seg := sealed(t, 100_000)
	s := &reads{Spool: spool.Memory{}, damaged: true}
	if _, err := spool.SHA256(s, seg); !errors.Is(err, spool.ErrChanged) {
		t.Errorf("of changed bytes: %v, want ErrChanged", err)
	}
	s.damaged, s.count = false, 0
	body, err := io.ReadAll(spool.Memory{}.Object(seg))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if sum, err := spool.SHA256(s, seg); err != nil || sum != sha256.Sum256(body) {
			t.Errorf("%x, %v", sum, err)
		}
	}
	if s.count != 1 {
		t.Errorf("the object was read %d times, want once", s.count)
	}
}

// The cost of SignPayload per byte of an object.
func BenchmarkSHA256(b *testing.B) {
	const size = 8 << 20
	b.SetBytes(size)
	for b.Loop() {
		b.StopTimer()
		seg := sealed(b, size)
		b.StartTimer()
		if _, err := spool.SHA256(spool.Memory{}, seg); err != nil {
			b.Fatal(err)
		}
	}
}
