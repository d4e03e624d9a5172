package spool_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs"
)

// Given segments of many frames, then recovery keeps little memory for each,
// and almost none for a delivered one. The test is not parallel, because it
// measures the process.
func TestRecover_MemoryPerSegment(t *testing.T) {
	const segments, frames = 3000, 12
	for _, tt := range []struct {
		name      string
		delivered bool
		most      uint64 // bytes per segment during recovery
		after     uint64 // bytes after recovery
	}{{"sealed", false, 2200, 1100}, {"delivered", true, 1000, 200}} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := vfs.Open(t.TempDir()+"/spool", vfs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			fillMany(t, dir, segments, frames, tt.delivered)

			before := liveHeap()
			var most atomic.Uint64
			j, err := spool.NewJournal(spool.JournalSettings{
				Dir: dir, RunID: "run-2", Interval: time.Hour,
				Gather: func(time.Time) ([]spool.Stage, bool) { // recovery has scanned all files and waits for this commit
					most.Store(max(most.Load(), liveHeap()))
					return nil, false
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			found, err := j.Recover(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := segments
			if tt.delivered {
				want = 1
			}
			if len(found.Sealed) != want {
				t.Errorf("%d segments, want %d", len(found.Sealed), want)
			}
			each, after := (max(most.Load(), before)-before)/segments, (max(liveHeap(), before)-before)/segments
			t.Logf("%d bytes for each segment of %d frames, %d in the end", each, frames, after)
			if each == 0 || each > tt.most || after > tt.after {
				t.Errorf("want at most %d and %d, and not 0", tt.most, tt.after)
			}
			runtime.KeepAlive(found)
			closeJournal(t, j)
		})
	}
}

// fillMany leaves sealed segments. With delivered, all but the first are
// delivered; the first one keeps the files.
func fillMany(t *testing.T, dir vfs.Dir, segments, frames uint64, delivered bool) {
	t.Helper()
	j, err := spool.NewJournal(spool.JournalSettings{
		Dir: dir, RunID: "run-1", Interval: time.Hour, FileSize: 1 << 20, Gather: new(feed).gather,
	})
	if err != nil {
		t.Fatal(err)
	}
	f := frame(t, "{}\n", day)
	for n := range segments {
		seg := segment(fmt.Sprintf("run-1-%024d", 1), n)
		for i := range frames {
			f.Partition, f.Block = 1+n%16, n*frames+i
			if err := j.Append(seg, f); err != nil {
				t.Fatal(err)
			}
		}
		j.Seal(seg, func() {})
		if delivered && n > 0 {
			j.Remove(seg)
		}
		if n%50 == 49 {
			if err := j.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeJournal(t, j)
}

// liveHeap returns the bytes of the heap that are in use.
func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // pools keep their contents for one more collection
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
