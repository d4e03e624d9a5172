package spool_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// Given records that a failed fsync left in the page cache alone, when the
// kernel drops them while recovery rewrites them, then recovery starts over and
// keeps what it rewrote. Lost records are not delivered, and no file is left.
func TestRecover_UnsyncedRecordChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		disk := crashfs.New(seed)
		j := openJournal(t, disk.Dir(), "run-1", new(feed))
		first := segment("run-1", 1)
		appendFrame(t, j, first, 1, "{\"n\":1}\n")
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		disk = killUnsynced(t, disk, j, crashfs.CallCreate, func() {
			for n := range uint64(6) { // each in its own sector
				f := frame(t, fmt.Sprintf("{\"n\":%d,\"noise\":%q}\n", 2+n, noise(seed*10+n, 1500)), day)
				f.Partition, f.Block = 2+n, 2+n
				if err := j.Append(segment("run-1", 2+n), f); err != nil {
					t.Fatal(err)
				}
			}
		})

		rng := rand.New(rand.NewPCG(seed, 1))
		var creates, syncs atomic.Int32
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallCreate && creates.Add(1) == 1 || op.Call == crashfs.CallSync && syncs.Add(1) == 2 {
				disk.Evict(rng)
			}
			return nil
		})
		j = openJournal(t, disk.Dir(), "run-2", new(feed))
		found, err := j.Recover(t.Context())
		if err != nil || len(found.DamagedFiles) > 0 || found.Quarantined > 0 {
			t.Fatalf("seed %d: %+v, %v", seed, found, err)
		}
		for _, part := range found.Unfinished {
			sealed := make(chan struct{})
			j.Seal(part.Segment, func() { close(sealed) })
			<-sealed
			if err := spool.Verify(j, part.Segment); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			j.Remove(part.Segment)
		}
		closeJournal(t, j)
		if left, err := disk.Dir().List(); err != nil || len(left) > 0 {
			t.Errorf("seed %d: left behind %v, %v", seed, left, err)
		}
	}
}

// Given a file with the only watermark of another file, when it is removed
// between two tries of recovery, then the second try still knows the watermark.
func TestRecover_KeepsWatermarkAcrossTries(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		disk := crashfs.New(seed)
		open := func(run string) *spool.Journal {
			j, err := spool.NewJournal(spool.JournalSettings{Dir: disk.Dir(), RunID: run, Interval: time.Hour, Preallocate: 20_000, Gather: new(feed).gather})
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		j := open("run-1")
		first, second := segment("run-1", 1), segment("run-1", 2)
		appendFrame(t, j, first, 1, "{\"n\":1}\n")
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		disk = killUnsynced(t, disk, j, crashfs.CallRemove, func() { appendFrame(t, j, second, 2, "{\"n\":2}\n") })

		rng := rand.New(rand.NewPCG(seed, 1))
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallCreate {
				disk.Evict(rng)
			}
			return nil
		})
		j = open("run-2")
		found, err := j.Recover(t.Context())
		if err != nil || len(found.DamagedFiles) > 0 {
			t.Fatalf("seed %d: found %+v, %v, want no damage", seed, found, err)
		}
		closeJournal(t, j)
	}
}

// Given a removed file that may reappear after a power cut, when the next run
// starts on the empty directory, then it fsyncs the directory before it creates
// a file. Otherwise the torn new file beside the old one would look like
// damage.
func TestNewJournal_RemovedFileReappears(t *testing.T) {
	t.Parallel()
	back := 0
	for seed := range uint64(100) {
		disk := crashfs.New(seed)
		j := openSmall(t, disk, new(feed))
		seg := sealOne(t, j)
		disk.Inject(func(op crashfs.Op) error {
			if op.Call != crashfs.CallSyncDir {
				return nil
			}
			if list, _ := disk.Dir().List(); len(list) == 0 {
				return crashfs.ErrStopped // killed as the last file is removed
			}
			return nil
		})
		j.Remove(seg)
		for range 2 { // each commit removes one
			j.Commit(t.Context())
		}
		disk.Stop()
		j.Close()
		disk = disk.Kill()
		if list, err := disk.Dir().List(); err != nil || len(list) > 0 {
			t.Fatal(list, err)
		}

		f := &feed{block: 1}
		j = openJournal(t, disk.Dir(), "run-2", f)
		if _, err := j.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallSync { // power cut
				disk.Stop()
			}
			return nil
		})
		f.add(fmt.Sprintf("{\"n\":1,\"noise\":%q}\n", noise(seed, 5000)))
		if err := j.Commit(t.Context()); err == nil {
			t.Fatal("a sync failed, and Commit returned nil")
		}
		next := disk.Crash(rand.New(rand.NewPCG(seed, 1)))
		j.Close()
		list, err := next.Dir().List()
		if err != nil {
			t.Fatal(err)
		}
		back += len(list)
		j = openJournal(t, next.Dir(), "run-3", new(feed))
		if found, err := j.Recover(t.Context()); err != nil || len(found.DamagedFiles) > 0 {
			t.Errorf("seed %d: found %+v in %v, %v, want no damage", seed, found, list, err)
		}
		closeJournal(t, j)
	}
	if back == 0 {
		t.Error("no file reappeared after a power cut, so the test proves nothing")
	}
}

// noise returns text that does not compress.
func noise(seed uint64, n int) string {
	rng := rand.New(rand.NewPCG(seed, 7))
	var b strings.Builder
	for range n {
		b.WriteByte(byte('a' + rng.IntN(26)))
	}
	return b.String()
}
