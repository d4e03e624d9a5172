package spool_test

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// Given an empty directory, when a journal is opened and closed, then it writes
// nothing.
func TestNewJournal_EmptyDirWritesNothing(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	disk.Inject(func(op crashfs.Op) error {
		if op.Call == crashfs.CallCreate || op.Call == crashfs.CallSync {
			t.Errorf("%s %s", op.Call, op.Name)
		}
		return nil
	})
	j := openJournal(t, disk.Dir(), "run", new(feed))
	if _, err := j.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
}

// Given a disk that fails every write, when 20 minutes pass, then the retries
// of a minute make no more calls and write no more bytes than at first. Neither
// discarded files nor watermarks accumulate.
func TestCommit_LongFailureHasConstantCost(t *testing.T) {
	t.Parallel()
	readOnly := func(op crashfs.Op) error {
		if op.Call == crashfs.CallCreate || op.Call == crashfs.CallRemove {
			return syscall.EROFS
		}
		return nil
	}
	full := func(op crashfs.Op) error {
		if op.Call == crashfs.CallAppend {
			return syscall.ENOSPC
		}
		return nil
	}
	for name, tt := range map[string]struct {
		fails func(crashfs.Op) error
		left  bool // a previous run left a file
	}{
		"read-only":             {readOnly, false},
		"full":                  {full, false},
		"read-only, with files": {readOnly, true},
		"full, with files":      {full, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				disk := crashfs.New(1)
				if tt.left {
					fill(t, disk.Dir())
				}
				f := &feed{block: 1}
				j := openJournal(t, disk.Dir(), "run", f)
				var calls, longest atomic.Int64
				disk.Inject(func(op crashfs.Op) error {
					calls.Add(1)
					longest.Store(max(longest.Load(), int64(op.Len)))
					return tt.fails(op)
				})
				var recovery sync.WaitGroup
				recovery.Go(func() {
					if _, err := j.Recover(t.Context()); err != nil {
						t.Error(err)
					}
				})
				minute := func() (int64, int64) {
					calls.Store(0)
					longest.Store(0)
					time.Sleep(time.Minute)
					return calls.Load(), longest.Load()
				}
				f.add("{}\n")
				if err := j.Commit(t.Context()); err == nil {
					t.Fatal("a write failed, and Commit returned nil")
				}
				minute() // two retries a second
				before, length := minute()
				time.Sleep(20 * time.Minute)
				after, longer := minute()
				if before == 0 || after > before+before/10 || longer > 2*length {
					t.Errorf("after 20 minutes %d calls a minute with %d bytes, at first %d with %d", after, longer, before, length)
				}
				disk.Inject(nil)
				if err := j.Commit(t.Context()); err != nil {
					t.Errorf("after the disk recovered: %v", err)
				}
				recovery.Wait()
				closeJournal(t, j)
				if left, err := disk.Dir().List(); err != nil || len(left) > 4 {
					t.Errorf("left %v, %v, want no file of a commit that failed", left, err)
				}
			})
		})
	}
}

// Given a reader of a file, when the file is removed, then its handle is closed
// after the read.
func TestFiles_RemovedFileClosedAfterRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk, reads, release := crashfs.New(1), make(chan struct{}), make(chan struct{})
		closed := map[string]int{}
		disk.Inject(func(op crashfs.Op) error {
			switch op.Call {
			case crashfs.CallRead:
				close(reads)
				<-release
			case crashfs.CallClose:
				closed[op.Name]++
			}
			return nil
		})
		j := openSmall(t, disk, new(feed))
		seg := sealOne(t, j)
		list, err := disk.Dir().List()
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v, want one file", list, err)
		}
		var reader sync.WaitGroup
		reader.Go(func() { io.Copy(io.Discard, j.Object(seg)) })
		<-reads
		j.Remove(seg)
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		removed := list[0].Name
		if left, err := disk.Dir().List(); err != nil || slices.Contains(left, list[0]) || closed[removed] > 0 {
			t.Errorf("%v, %v, closed %v, want %s gone, and open", left, err, closed, removed)
		}
		close(release)
		reader.Wait()
		if closed[removed] != 1 {
			t.Errorf("closed %v, want %s", closed, removed)
		}
		closeJournal(t, j)
	})
}
