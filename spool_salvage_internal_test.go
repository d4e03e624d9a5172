package s3sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// leave runs a sink that tracks large lines and is killed. It returns the disk
// and the name of its first file.
func leave(t *testing.T, lines int) (disk *crashfs.FS, file string) {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	disk = crashfs.New(1)
	sink := openOn(t, disk, kindShelf(t), bigObjects)
	rng := rand.New(rand.NewPCG(2, 2))
	for n := range lines {
		text := make([]byte, 5000)
		for i := range text {
			text[i] = byte(rng.Uint32())
		}
		if err := sink.TrackLine(fmt.Appendf(nil, `{"src":"a","n":%d,"text":"%x"}`, n, text)); err != nil {
			t.Fatal(err)
		}
		if n%20 == 0 {
			time.Sleep(time.Second)
		}
	}
	time.Sleep(2 * time.Second)
	next := disk.Kill()
	sink.Close(ended)
	entries, err := next.Dir().List()
	if err != nil || len(entries) == 0 {
		t.Fatal(entries, err)
	}
	return next, entries[0].Name
}

func bigObjects(c *Config) {
	c.MaxObjectEvents, c.MaxObjectAge, c.MaxMemory, c.MaxEventBytes = 0, time.Hour, 1<<20, 16<<10
}

// logWatch is the output of a log. It notes whether a text was logged.
type logWatch struct {
	text string
	seen atomic.Bool
}

func (w *logWatch) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.seen.Store(true)
	}
	return len(p), nil
}

// Given a damaged spool and a disk that is full for a while, then recovery
// waits for the disk, and the counts and the order hold.
func TestRecovery_SalvageWaitsForFullDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk, file := leave(t, 120)
		bucket := kindShelf(t)
		data, _ := disk.ReadFile(file)
		data[len(data)/8] ^= 1
		disk.Put(file, 0, data)

		damaged := logWatch{text: "is damaged"}
		until := time.Now().Add(time.Minute)
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallSync && time.Now().Before(until) && damaged.seen.Load() {
				return syscall.ENOSPC
			}
			return nil
		})
		sink := openOn(t, disk, bucket, bigObjects, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&damaged, nil)) })
		time.Sleep(time.Second)
		if err := sink.Err(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("while the disk is full: %v", err)
		}
		for n := range 3 {
			if err := sink.TrackLine(fmt.Appendf(nil, `{"src":"a","n":%d}`, 1000+n)); err != nil {
				t.Fatal(err)
			}
		}
		sink.Close(t.Context()) // events are quarantined
		got := bucket.lines(t)
		st := sink.Stats()
		if st.Recovered+3 != st.Delivered+st.Quarantined || st.Recovered < 100 || int64(len(got)) != st.Delivered || st.Pending != 0 {
			t.Errorf("%d lines delivered, %+v", len(got), st)
		}
		bucket.check(t, 0, nil)
		if left, err := disk.Dir().List(); err != nil || len(left) != 1 || left[0].Name != "corrupt" {
			t.Errorf("left %v, %v", left, err)
		}
	})
}

// Given a journal file that disappears during recovery, then Err reports it as
// long as the sink lives, and Close does not return nil, because the remaining
// events are in no count.
func TestRecovery_FileDisappears(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk, file := leave(t, 3)
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallRead && op.Name != file { // a file to which recovery has rewritten the lines
				return io.EOF
			}
			return nil
		})
		sink := openOn(t, disk, kindShelf(t))
		time.Sleep(time.Minute)
		if err := sink.Err(); !errors.Is(err, io.EOF) {
			t.Errorf("Err: %v", err)
		}
		if err := sink.Close(t.Context()); !errors.Is(err, errUnread) || !errors.Is(err, io.EOF) {
			t.Errorf("Close: %v", err)
		}
		if left, err := disk.Dir().List(); err != nil || len(left) == 0 {
			t.Errorf("left %v, %v, want what the next run may read", left, err)
		}
	})
}

// Given a spool that cannot be read, then blocks of this run are not
// compressed: with their frames they would exceed MaxMemory.
func TestRecovery_HeldBackBlocksAreNotCompressed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk, _ := leave(t, 3)
		bucket := kindShelf(t)
		failReads(disk, time.Minute, 0)
		sink := openOn(t, disk, bucket)
		line := strings.Repeat("x", 10_000)
		for n := range 100 {
			if err := sink.TrackLine(fmt.Appendf(nil, `{"src":"a","n":%d,"text":"%s"}`, 1000+n, line)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		b := sink.batcher
		b.mu.Lock()
		for blk := range b.pending {
			if blk.frame != nil {
				t.Errorf("a frame of %d bytes waits", len(blk.frame.Payload))
			}
		}
		b.mu.Unlock()
		if err := sink.Close(t.Context()); err != nil {
			t.Error(err)
		}
		bucket.check(t, 0, nil)
		if got := len(bucket.lines(t)); got != 103 {
			t.Errorf("%d lines delivered, want 103", got)
		}
	})
}
