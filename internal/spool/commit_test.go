package spool_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// Callers whom one commit has woken are in one commit again: none of them goes
// ahead and has the others wait for a sync of its own line.
func TestCommitWaitsForTheWoken(t *testing.T) {
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
				for range 2 * callers {
					runtime.Gosched() // all others come to wait
				}
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
