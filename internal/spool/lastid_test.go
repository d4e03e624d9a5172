package spool_test

import (
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// Given a failed commit whose new file cannot be removed, when the previous file
// is removed after its deliveries and the power is cut, then the next run knows
// the last id, although no file may have it.
func TestLastID_FileOfFailedCommit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		disk := crashfs.New(seed)
		open := func(run string, f *feed) *spool.Journal {
			t.Helper()
			j, err := spool.NewJournal(spool.JournalSettings{
				Dir: disk.Dir(), RunID: run, Interval: time.Hour, Gather: f.gather, LastID: func() uint64 { return 100 },
			})
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		f := &feed{block: 2}
		j := open("run-1", f)
		j.Remove(sealOne(t, j))
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := disk.Dir().List()
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v, want one file", list, err)
		}
		only := list[0]
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallSync || op.Call == crashfs.CallRemove && op.Name != only.Name {
				return syscall.EIO
			}
			return nil
		})
		f.add("{\"n\":1}\n")
		if err := j.Commit(t.Context()); err == nil {
			t.Fatal("a sync failed, and Commit returned nil")
		}
		if list, err = disk.Dir().List(); err != nil || len(list) == 0 || slices.Contains(list, only) {
			t.Fatalf("%v, %v, want files of failed commits alone", list, err)
		}
		next := disk.Crash(rand.New(rand.NewPCG(seed, 1)))
		j.Close()

		disk = next
		j = open("run-2", new(feed))
		if found, err := j.Recover(t.Context()); err != nil || found.LastID != 100 {
			t.Errorf("seed %d: recovered %+v, %v, want the last id 100", seed, found, err)
		}
		closeJournal(t, j)
	}
}
