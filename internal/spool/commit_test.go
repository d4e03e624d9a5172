package spool_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// Callers whom one commit has woken are in one commit again: none of them goes
// ahead and has the others wait for a sync of its own line.
func TestCommit_GroupsWokenCallers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the same order each time
	const callers, each = 32, 50
	const line = "{}\n"
	synctest.Test(t, func(t *testing.T) { // in which no time passes, however busy the machine is
		disk, alone := crashfs.New(1), 0
		var last int
		f := &feed{block: 1}
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallSync {
				if f.staged-last == len(line) {
					alone++
				}
				last = f.staged
				giveWay() // all others come to wait
			}
			return nil
		})
		j := openJournal(t, disk.Dir(), "run", f)
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					f.add(line)
					if err := j.Commit(context.Background()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		closeJournal(t, j)
		if alone > each/2 {
			t.Errorf("%d syncs were of one caller's line alone", alone)
		}
	})
}

// giveWay lets others run. In a bubble of synctest nobody may sleep who has the
// turn to commit: its clock stands still while another waits for that.
func giveWay() {
	for range 100 {
		runtime.Gosched()
	}
}

// Close waits for callers who commit at that time, and they for it; who comes later
// is told how it went.
func TestClose_ConcurrentCommits(t *testing.T) {
	t.Parallel()
	for _, fails := range []error{nil, syscall.EIO} {
		synctest.Test(t, func(t *testing.T) {
			disk, release := crashfs.New(1), make(chan struct{})
			disk.Inject(func(op crashfs.Op) error {
				if op.Call != crashfs.CallSync {
					return nil
				}
				<-release
				return fails
			})
			f := &feed{block: 1}
			j := openJournal(t, disk.Dir(), "run", f)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var wg sync.WaitGroup
			commit := func(ctx context.Context) {
				wg.Go(func() {
					if err := j.Commit(ctx); !errors.Is(err, fails) {
						t.Errorf("Commit: %v, want %v", err, fails)
					}
				})
				giveWay()
			}
			f.add("{}\n")
			commit(context.Background())
			closed := false
			wg.Go(func() {
				if err := j.Close(); !errors.Is(err, fails) {
					t.Errorf("Close: %v, want %v", err, fails)
				}
				closed = true
			})
			giveWay()
			commit(context.Background())
			commit(ctx)
			if closed {
				t.Error("Close did not wait")
			}
			close(release)
			wg.Wait()
			commit(context.Background())
			commit(ctx)
			wg.Wait()
		})
	}
}
