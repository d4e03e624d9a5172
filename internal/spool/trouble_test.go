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

// A journal that cannot begin lets go of what it has opened.
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
			t.Errorf("%v, and these are open: %v", err, open)
		}
	}
	if failed == 0 {
		t.Errorf("it begins although %d operations fail", failed)
	}
}

// However often a recovery has failed, the one that succeeds is as if it were
// the first: when all is delivered, no file stays.
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
		finishTail(t, j, got.Unfinished[0])
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

// finishTail completes and delivers a tail with one block.
func finishTail(t *testing.T, j *spool.Journal, tail spool.UnfinishedPartition) {
	t.Helper()
	b := tail.Blocks[0]
	lines, err := b.Lines()
	if err != nil {
		t.Fatal(err)
	}
	f := frame(t, string(lines), day)
	f.Run, f.Partition, f.Block = b.Run, b.Partition, b.Block
	if err := j.Append(tail.Segment, f); err != nil {
		t.Fatal(err)
	}
	sealed := make(chan struct{})
	j.Seal(tail.Segment, func() { close(sealed) })
	<-sealed
	j.Remove(tail.Segment)
}

// What cannot be removed is removed as soon as it can be, also when nobody has
// anything to commit any more: those who wait for room have nothing.
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

// killUnsynced has a journal write what comes of do while no sync works, nor
// another call, and kills the process: the kernel alone has those records.
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
		t.Fatal("a sync failed, and nobody said so")
	}
	next = disk.Kill()
	j.Close()
	return next
}

// openSmall opens a journal of which each commit fills a file.
func openSmall(t *testing.T, disk *crashfs.FS, f *feed) *spool.Journal {
	t.Helper()
	j, err := spool.NewJournal(spool.JournalSettings{Dir: disk.Dir(), RunID: "run-1", Interval: time.Second, FileSize: 1, Gather: f.gather})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// sealOne brings a segment of one frame to the disk.
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

// Files of commits that have failed are removed when they can be, although a
// file before them is needed; and they are counted while they are there.
func TestRemoval_FilesOfFailedCommits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := crashfs.New(1)
		f := &feed{block: 1}
		j := openSmall(t, disk, f)
		f.add(line(1, 7)) // long: else its file would be cleaned
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
		time.Sleep(10 * time.Second) // it goes on trying
		disk.Inject(nil)
		time.Sleep(2 * time.Second)
		if left, err := disk.Dir().List(); err != nil || len(left) != 2 || j.Err() != nil {
			t.Errorf("left %v, %v; Err: %v", left, err, j.Err())
		}
		closeJournal(t, j)
	})
}

// What recovery writes again comes in small commits, because Track may wait for
// one.
func TestRecover_BoundedRewriteCommits(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	j, err := spool.NewJournal(spool.JournalSettings{Dir: disk.Dir(), RunID: "run-1", Interval: time.Hour, Gather: new(feed).gather})
	if err != nil {
		t.Fatal(err)
	}
	const frames = 30 // of some 100 KB, in one commit
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
		t.Errorf("%d bytes were written again, at most %d at once; want 1 MiB", all.Load(), most.Load())
	}
	closeJournal(t, j)
}

// When many files come free at once, no commit removes more than one: somebody may
// wait for it.
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

// What says that a segment is delivered outlives its frames, also when recovery
// has written it again, into a file that is full before recovery ends: else a
// power cut leaves some of the frames, and nothing that says so.
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
			if op.Call == crashfs.CallRemove && gone { // the power fails when the first frame is gone
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
		t.Error("nothing was removed: that shows nothing")
	}
}

// A full disk does not keep the journal from removing what nobody needs: that
// makes room.
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
		appendFrame(t, j, seg, 1+n, line(1, 7)) // long: were the files mostly their own headers, they would be cleaned
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var full atomic.Bool
	disk.Inject(func(op crashfs.Op) error {
		switch op.Call {
		case crashfs.CallRemove:
			if !full.Swap(true) { // somebody takes the room, and there is something to write
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
