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

// Given callers that one commit has woken, when each adds a line and commits,
// then they share the next commit: none of them fsyncs its line alone.
func TestCommit_GroupsWokenCallers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the same order each time
	const callers, each = 32, 50
	const line = "{}\n"
	synctest.Test(t, func(t *testing.T) { // the bubble's clock stands still while a goroutine runs, on a busy machine too
		disk, alone := crashfs.New(1), 0
		var last int
		f := &feed{block: 1}
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallSync {
				if f.staged-last == len(line) {
					alone++
				}
				last = f.staged
				letOthersRun() // all others wait for the commit
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
			t.Errorf("%d fsyncs had the line of one caller only", alone)
		}
	})
}

// letOthersRun lets other goroutines run, without a sleep: the callers must join
// this commit, not come after it.
func letOthersRun() {
	for range 100 {
		runtime.Gosched()
	}
}

// Given callers in Commit, when Close is called, then it waits for them, and
// they return its commit's result. So do later callers.
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
				letOthersRun()
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
			letOthersRun()
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
