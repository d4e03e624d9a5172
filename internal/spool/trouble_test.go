package spool_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// Given failing operations, when NewJournal returns an error, then no file is
// left open.
func TestNewJournal_FailureClosesFiles(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	fill(t, disk.Dir())
	failed := 0
	for n := 0; ; n++ {
		now := disk.Kill()
		now.FailAt(n, crashfs.EIO)
		dir := now.Dir()
		j, err := spool.NewJournal(spool.JournalSettings{Dir: dir, RunID: "run-2", Interval: time.Hour, Gather: new(feed).gather})
		if err == nil {
			closeJournal(t, j)
			break
		}
		failed++
		dir.Close()
		if open := now.Handles(); len(open) > 0 {
			t.Errorf("%v, and these files are open: %v", err, open)
		}
	}
	if failed == 0 {
		t.Errorf("NewJournal succeeds although %d operations fail", failed)
	}
}

// Given recoveries that failed in any operation, when one succeeds, then
// everything can be delivered and no file is left.
func TestRecover_AfterFailedTries(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	fill(t, disk.Dir())
	retried := 0
	for failing := 0; ; failing++ {
		now := disk.Kill()
		j := openJournal(t, now.Dir(), "run-2", new(feed))
		ops := now.Ops()
		tripped := false
		now.Inject(func(op crashfs.Op) error {
			if op.N != ops+failing {
				return nil
			}
			tripped = true
			return syscall.EIO
		})
		got, err := j.Recover(t.Context())
		if errors.Is(err, syscall.EIO) {
			retried++
			got, err = j.Recover(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		now.Inject(nil)
		j.Remove(got.Sealed[0])
		finishPartition(t, j, got.Unfinished[0])
		closeJournal(t, j)
		if left, err := now.Dir().List(); err != nil || len(left) > 0 {
			t.Errorf("operation %d failed: left %v, %v", failing, left, err)
		}
		if !tripped {
			break
		}
	}
	if retried < 3 {
		t.Errorf("%d operations failed a recovery", retried)
	}
}

// finishPartition completes and delivers a partition with one block.
func finishPartition(t *testing.T, j *spool.Journal, part spool.UnfinishedPartition) {
	t.Helper()
	b := part.Blocks[0]
	lines, err := b.Lines()
	if err != nil {
		t.Fatal(err)
	}
	f := frame(t, string(lines), day)
	f.Run, f.Partition, f.Block = b.Run, b.Partition, b.Block
	if err := j.Append(part.Segment, f); err != nil {
		t.Fatal(err)
	}
	sealed := make(chan struct{})
	j.Seal(part.Segment, func() { close(sealed) })
	<-sealed
	j.Remove(part.Segment)
}

// Given files that cannot be removed, when they can be again, then they are
// removed although nothing is committed. Callers that wait for room commit
// nothing.
func TestRemoval_RetriesWithoutCommits(t *testing.T) {
	t.Parallel()
	for _, broken := range []crashfs.Call{crashfs.CallRemove, crashfs.CallSyncDir} {
		synctest.Test(t, func(t *testing.T) {
			disk := crashfs.New(1)
			j := openSmall(t, disk, new(feed))
			seg := sealOne(t, j)
			disk.Inject(func(op crashfs.Op) error {
				if op.Call == broken && op.N > 0 && time.Now().Second() < 20 {
					return syscall.EIO
				}
				return nil
			})
			j.Remove(seg)
			time.Sleep(30 * time.Second)
			if left, err := disk.Dir().List(); err != nil || len(left) > 0 || j.Bytes() > 0 {
				t.Errorf("%s failed for 20 seconds: left %v, %v, %d bytes", broken, left, err, j.Bytes())
			}
			closeJournal(t, j)
		})
	}
}

// killUnsynced calls do while every fsync and the calls in also fail, waits for
// the commits, and kills the process. Only the page cache has the records.
func killUnsynced(t *testing.T, disk *crashfs.FS, j *spool.Journal, also crashfs.Call, do func()) (next *crashfs.FS) {
	t.Helper()
	disk.Inject(func(op crashfs.Op) error {
		if op.Call == crashfs.CallSync || op.Call == also {
			return syscall.EIO
		}
		return nil
	})
	do()
	if err := j.Commit(t.Context()); err == nil {
		t.Fatal("a sync failed, and Commit returned nil")
	}
	next = disk.Kill()
	j.Close()
	return next
}

// openSmall opens a journal in which each commit fills a file.
func openSmall(t *testing.T, disk *crashfs.FS, f *feed) *spool.Journal {
	t.Helper()
	j, err := spool.NewJournal(spool.JournalSettings{Dir: disk.Dir(), RunID: "run-1", Interval: time.Second, FileSize: 1, Gather: f.gather})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// sealOne seals a segment of one frame.
func sealOne(t *testing.T, j *spool.Journal) *spool.Segment {
	t.Helper()
	seg := segment("run-1", 1)
	appendFrame(t, j, seg, 1, "{}\n")
	j.Seal(seg, func() {})
	if err := j.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return seg
}

// Given files of failed commits behind a pinned file, when they can be removed,
// then they are. Until then Bytes counts them.
func TestRemoval_FilesOfFailedCommits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := crashfs.New(1)
		f := &feed{block: 1}
		j := openSmall(t, disk, f)
		f.add(line(1, 7)) // long, so that the file is not cleaned
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := j.Bytes()
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallSync || op.Call == crashfs.CallRemove {
				return syscall.EIO
			}
			return nil
		})
		f.add("{\"n\":1}\n")
		if err := j.Commit(t.Context()); !errors.Is(err, syscall.EIO) || j.Bytes() <= before {
			t.Errorf("commit: %v, %d bytes after %d", err, j.Bytes(), before)
		}
		time.Sleep(10 * time.Second) // the journal retries
		disk.Inject(nil)
		time.Sleep(2 * time.Second)
		if left, err := disk.Dir().List(); err != nil || len(left) != 2 || j.Err() != nil {
			t.Errorf("left %v, %v; Err: %v", left, err, j.Err())
		}
		closeJournal(t, j)
	})
}

// Given many unsynced records, then recovery rewrites them in small commits,
// because Track may wait for one.
func TestRecover_BoundedRewriteCommits(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	j, err := spool.NewJournal(spool.JournalSettings{Dir: disk.Dir(), RunID: "run-1", Interval: time.Hour, Gather: new(feed).gather})
	if err != nil {
		t.Fatal(err)
	}
	const frames = 30 // of about 100 KB, in one commit
	for n := range uint64(frames) {
		appendFrame(t, j, segment("run-1", n), n, noise(n, 100<<10)+"\n")
	}
	if err := j.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)

	disk = disk.Kill()
	var group, most, all atomic.Int64
	disk.Inject(func(op crashfs.Op) error {
		switch op.Call {
		case crashfs.CallAppend:
			all.Add(int64(op.Len))
			most.Store(max(most.Load(), group.Add(int64(op.Len))))
		case crashfs.CallSync:
			group.Store(0)
		}
		return nil
	})
	j = openJournal(t, disk.Dir(), "run-2", new(feed))
	found, err := j.Recover(t.Context())
	if err != nil || len(found.Unfinished) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	if all.Load() < 2<<20 || most.Load() > 1<<20+4<<10 {
		t.Errorf("%d bytes were rewritten, at most %d in one commit; want 1 MiB", all.Load(), most.Load())
	}
	closeJournal(t, j)
}

// Given many files that become unpinned at once, then each commit removes at
// most one, because callers wait for it.
func TestRemoval_OneFilePerCommit(t *testing.T) {
	t.Parallel()
	const files = 10
	disk := crashfs.New(1)
	var removed, most atomic.Int64
	disk.Inject(func(op crashfs.Op) error {
		if op.Call == crashfs.CallRemove {
			removed.Add(1)
		}
		return nil
	})
	j, err := spool.NewJournal(spool.JournalSettings{
		Dir: disk.Dir(), RunID: "run-1", Interval: time.Hour, FileSize: 1,
		Gather: func(time.Time) ([]spool.Stage, bool) { // a commit begins
			most.Store(max(most.Load(), removed.Swap(0)))
			return nil, false
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	seg := segment("run-1", 1) // in all files
	for n := range uint64(files) {
		appendFrame(t, j, seg, 1+n, "{}\n")
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	j.Remove(seg)
	for left := files; left > 0; {
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		names, err := disk.Dir().List()
		if err != nil {
			t.Fatal(err)
		}
		left = len(names)
	}
	if most.Store(max(most.Load(), removed.Load())); most.Load() != 1 {
		t.Errorf("one commit removed %d files, want 1", most.Load())
	}
	closeJournal(t, j)
}

// Given a "delivered" record that recovery rewrote, and whose new file is full
// before recovery ends, then that file is not removed before the segment's
// frames. Otherwise a power cut could leave frames of a delivered segment.
func TestRemoval_DeliveredRecordAfterFrames(t *testing.T) {
	t.Parallel()
	cut := 0
	for seed := range uint64(50) {
		disk := crashfs.New(seed)
		open := func(run string, full int64) *spool.Journal {
			j, err := spool.NewJournal(spool.JournalSettings{Dir: disk.Dir(), RunID: run, Interval: time.Hour, FileSize: full, CopyStep: 1, Gather: new(feed).gather})
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		j := open("run-1", 700)
		segs := []*spool.Segment{segment("run-1", 1), segment("run-1", 2), segment("run-1", 3)}
		for n, seg := range []int{0, 0, 1, 2} { // the first two frames fill a file each
			appendFrame(t, j, segs[seg], uint64(n), fmt.Sprintf("{\"n\":%d,\"noise\":%q}\n", n, noise(seed+uint64(n), 1500>>(n/2*8))))
			if n == 2 {
				j.Seal(segs[0], func() {})
				j.Seal(segs[1], func() {})
			}
			if err := j.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		disk = killUnsynced(t, disk, j, crashfs.CallCreate, func() {
			j.Remove(segs[0])
			j.Remove(segs[1])
		})

		old, _ := disk.Dir().List()
		gone := false
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallRemove && gone { // power cut after the first frame's file is removed
				return crashfs.ErrStopped
			}
			gone = gone || op.Call == crashfs.CallRemove && op.Name == old[0].Name
			return nil
		})
		j = open("run-2", 1)
		if _, err := j.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		j.Commit(t.Context())
		j.Commit(t.Context())
		disk.Stop()
		if gone {
			cut++
		}
		next := disk.Crash(rand.New(rand.NewPCG(seed, 3)))
		j.Close()
		disk = next
		j = open("run-3", 1)
		found, err := j.Recover(t.Context())
		if err != nil || len(found.DamagedFiles) > 0 || found.LostEvents() > 0 {
			t.Errorf("seed %d: found %+v, %v, want no damage", seed, found, err)
		}
		closeJournal(t, j)
	}
	if cut == 0 {
		t.Error("nothing was removed, so the test proves nothing")
	}
}

// Given a full disk and failing commits, then unpinned files are removed.
func TestRemoval_FullDisk(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	j, err := spool.NewJournal(spool.JournalSettings{
		Dir: disk.Dir(), RunID: "run-1", Interval: time.Hour, FileSize: 1, Gather: new(feed).gather,
	})
	if err != nil {
		t.Fatal(err)
	}
	seg := segment("run-1", 1) // in all files
	for n := range uint64(10) {
		appendFrame(t, j, seg, 1+n, line(1, 7)) // long, so that the file is not cleaned
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var full atomic.Bool
	disk.Inject(func(op crashfs.Op) error {
		switch op.Call {
		case crashfs.CallRemove:
			if !full.Swap(true) { // the volume becomes full while entries are queued
				appendFrame(t, j, segment("run-1", 2), 100, "{}\n")
			}
		case crashfs.CallAppend, crashfs.CallCreate:
			if full.Load() {
				return syscall.ENOSPC
			}
		}
		return nil
	})
	j.Remove(seg)
	for range 20 {
		j.Commit(t.Context())
	}
	if left, err := disk.Dir().List(); err != nil || len(left) > 1 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
	disk.Inject(nil)
	closeJournal(t, j)
}
