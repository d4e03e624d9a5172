package spool_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

const (
	volumeBytes  = 256 << 10
	volumeFile   = 32 << 10
	reserveBytes = 16 << 10
)

// openBounded opens a journal with a reserve, on a volume of 256 KiB.
func openBounded(t *testing.T, disk *crashfs.FS, run string, f *feed, early func([]*spool.Segment)) *spool.Journal {
	t.Helper()
	j, err := spool.NewJournal(spool.JournalSettings{
		Dir: disk.Dir(), RunID: run, Interval: time.Second, Gather: f.gather,
		FileSize: volumeFile, ReserveBytes: reserveBytes, DeliverEarly: early,
	})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// sizes returns the sizes of the files on a disk by name.
func sizes(t *testing.T, disk *crashfs.FS) map[string]int64 {
	t.Helper()
	list, err := disk.Dir().List()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int64{}
	for _, e := range list {
		all[e.Name] = e.Size
	}
	return all
}

// fillVolume seals segments of one event until a commit fails. It returns the
// number of sealed segments.
func fillVolume(t *testing.T, j *spool.Journal, lines int) int {
	t.Helper()
	var sealed atomic.Int64
	for n := uint64(1); ; n++ {
		seg := segment("run-1", n)
		appendFrame(t, j, seg, n, noise(n, lines)+"\n")
		j.Seal(seg, func() { sealed.Add(1) })
		if err := j.Commit(t.Context()); err != nil {
			if !vfs.IsFull(err) {
				t.Fatal(err)
			}
			return int(sealed.Load())
		}
	}
}

// Given a volume that is full except for the reserve, when segments are
// delivered, then their records use the room of the reserve, the files are
// removed, and the reserve is created again.
func TestReserve_DrainsFullVolume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := crashfs.New(1)
		disk.SetCapacity(volumeBytes)
		j := openBounded(t, disk, "run-1", new(feed), nil)
		seg := segment("run-1", 1)
		appendFrame(t, j, seg, 1, noise(1, 8<<10)+"\n")
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := sizes(t, disk)
		if all["s3sink.reserve"] != reserveBytes {
			t.Fatalf("%v, want a reserve of %d bytes", all, reserveBytes)
		}
		var used int64
		for _, size := range all {
			used += size
		}
		disk.SetCapacity(used) // other programs take the rest
		sealed := false
		j.Seal(seg, func() { sealed = true })
		if err := j.Commit(t.Context()); err != nil || !sealed {
			t.Fatalf("on a full volume: sealed %v, %v", sealed, err)
		}
		if all := sizes(t, disk); all["s3sink.reserve"] != 0 {
			t.Errorf("%v, want no reserve", all)
		}
		if object, err := io.ReadAll(j.Object(seg)); err != nil || int64(len(object)) != seg.Size() {
			t.Errorf("%d bytes, %v", len(object), err)
		}
		j.Remove(seg)
		if err := j.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		disk.SetCapacity(volumeBytes)
		time.Sleep(time.Second)
		appendFrame(t, j, segment("run-1", 2), 2, "{}\n")
		if err := j.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if all := sizes(t, disk); all["s3sink.reserve"] != reserveBytes {
			t.Errorf("with room again: %v, want a reserve of %d bytes", all, reserveBytes)
		}
		closeJournal(t, j)
	})
}

// Given a full volume, when new events are staged, then their commit fails and
// the reserve stays.
func TestReserve_NotUsedByNewEvents(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	disk.SetCapacity(volumeBytes)
	f := &feed{block: 1}
	j := openBounded(t, disk, "run-1", f, nil)
	for range 1000 {
		f.add(strings.Repeat("x", 2000) + "\n")
		if err := j.Commit(t.Context()); err != nil {
			if !vfs.IsFull(err) {
				t.Error(err)
			}
			break
		}
	}
	if all := sizes(t, disk); all["s3sink.reserve"] != reserveBytes || j.Room() > 8000 {
		t.Errorf("%v, room for %d bytes: want a reserve and hardly any room", all, j.Room())
	}
	j.Close()
}

// Given stages that found no room, when their block's frame is written, then it
// replaces them: after the delivery no file is pinned by the block.
func TestFullVolume_FrameReplacesItsStages(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	disk.SetCapacity(volumeBytes)
	f := &feed{block: 1}
	j := openBounded(t, disk, "run-1", f, nil)
	lines := strings.Repeat("{\"n\":\""+strings.Repeat("x", 90)+"\"}\n", 5000) // more than the volume
	f.add(lines)
	if err := j.Commit(t.Context()); !vfs.IsFull(err) {
		t.Fatalf("%d bytes in %d: %v", len(lines), volumeBytes, err)
	}
	seg := segment("run-1", 1)
	appendFrame(t, j, seg, 1, lines)
	sealed := make(chan struct{})
	j.Seal(seg, func() { close(sealed) })
	if err := j.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	<-sealed
	j.Remove(seg)
	closeJournal(t, j)
	if all := sizes(t, disk); len(all) > 0 {
		t.Errorf("left behind: %v", all)
	}
}

// Given a full volume and a segment whose blocks were appended to another one,
// then its "delivered" record stays behind their frames, although other entries
// overtake them.
func TestFullVolume_RemoveReplacedFollowsFrames(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	disk.SetCapacity(volumeBytes)
	j := openBounded(t, disk, "run-1", new(feed), nil)
	seg := segment("run-1", 1)
	appendFrame(t, j, seg, 1, noise(1, 100<<10)+"\n")
	sealed := make(chan struct{})
	j.Seal(seg, func() { close(sealed) })
	if err := j.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-sealed
	disk.SetCapacity(volumeBytes / 2)
	appendFrame(t, j, segment("run-1", 2), 1, noise(1, 100<<10)+"\n")
	j.RemoveReplaced(seg)
	if err := j.Commit(t.Context()); !vfs.IsFull(err) {
		t.Fatalf("Commit: %v, want ENOSPC", err)
	}
	disk.Stop()
	j.Close()
	disk = disk.Kill()
	disk.SetCapacity(volumeBytes)
	next := openJournal(t, disk.Dir(), "run-2", new(feed))
	found, err := next.Recover(t.Context())
	if err != nil || len(found.Sealed) != 1 {
		t.Errorf("found %+v, %v, want the replaced segment", found, err)
	}
	closeJournal(t, next)
}

// Given a full volume, when Recover runs, then it delivers early the sealed
// segments that are known to be on disk. The other segments wait. No segment is
// delivered early and also recovered, even if Recover has to be called again.
func TestRecover_DeliversEarlyOnFullVolume(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	disk.SetCapacity(volumeBytes)
	j := openBounded(t, disk, "run-1", new(feed), nil)
	sealed := fillVolume(t, j, 4<<10)
	disk.Stop()
	j.Close()
	disk = disk.Kill()
	all := sizes(t, disk)
	var used int64
	for name, size := range all {
		if name != "s3sink.reserve" {
			used += size
		}
	}
	if err := disk.Dir().Remove("s3sink.reserve"); err != nil && all["s3sink.reserve"] > 0 {
		t.Fatal(err)
	}
	disk.SetCapacity(used) // without a reserve

	var given []*spool.Segment
	var called atomic.Int64
	j = openBounded(t, disk, "run-2", new(feed), func(segs []*spool.Segment) {
		given = append(given, segs...)
		called.Add(1)
	})
	found := make(chan *spool.Recovered)
	go func() {
		for {
			got, err := j.Recover(t.Context())
			if err == nil {
				found <- got
				return
			}
		}
	}()
	for called.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if len(given) < sealed-1 || len(given) == 0 {
		t.Errorf("%d of %d segments were delivered early", len(given), sealed)
	}
	for _, seg := range given {
		if object, err := io.ReadAll(j.Object(seg)); err != nil || int64(len(object)) != seg.Size() {
			t.Fatalf("%s: %d bytes, %v", seg.Key, len(object), err)
		}
		j.Remove(seg)
	}
	disk.SetCapacity(volumeBytes)
	j.Commit(t.Context())
	rest := <-found
	for _, seg := range rest.Sealed {
		if slices.ContainsFunc(given, func(g *spool.Segment) bool { return g.Key == seg.Key }) {
			t.Errorf("%s was delivered early and recovered", seg.Key)
		}
		j.Remove(seg)
	}
	for _, part := range rest.Unfinished {
		finishPartition(t, j, part)
	}
	closeJournal(t, j)
	if left := sizes(t, disk); len(left) > 1 {
		t.Errorf("left behind: %v", left)
	}
}

// Given a reserve file of a previous run, then a torn one is replaced, and one
// of about the wanted size is kept.
func TestReserve_FileOfPreviousRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ left, want int64 }{{0, reserveBytes}, {reserveBytes / 4, reserveBytes}, {reserveBytes - 1, reserveBytes - 1}} {
		t.Run(fmt.Sprint(tt.left), func(t *testing.T) {
			t.Parallel()
			disk := crashfs.New(1)
			disk.SetCapacity(volumeBytes)
			disk.Put("s3sink.reserve", 0, make([]byte, tt.left))
			j := openBounded(t, disk, "run-1", new(feed), nil)
			seg := segment("run-1", 1)
			appendFrame(t, j, seg, 1, "{}\n")
			if err := j.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if all := sizes(t, disk); all["s3sink.reserve"] != tt.want {
				t.Errorf("%v, want a reserve of %d bytes", all, tt.want)
			}
			j.Seal(seg, func() {})
			j.Remove(seg)
			closeJournal(t, j)
			if all := sizes(t, disk); len(all) > 0 {
				t.Errorf("left behind: %v", all)
			}
		})
	}
}

// Given a volume without room for a reserve, then none is created. Given one
// that fails with other errors than a full disk, then the reserve is kept.
func TestReserve_KeptOnOtherErrors(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	disk.SetCapacity(volumeBytes)
	j := openBounded(t, disk, "run-1", new(feed), nil)
	appendFrame(t, j, segment("run-1", 1), 1, "{}\n")
	if err := j.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	disk.Inject(func(op crashfs.Op) error {
		if op.Call == crashfs.CallSync {
			return broken
		}
		return nil
	})
	appendFrame(t, j, segment("run-1", 2), 2, "{}\n")
	if err := j.Commit(t.Context()); !errors.Is(err, broken) {
		t.Errorf("Commit: %v", err)
	}
	disk.Inject(nil)
	if all := sizes(t, disk); all["s3sink.reserve"] != reserveBytes {
		t.Errorf("%v, want the reserve", all)
	}
	closeJournal(t, j)
}
