package spool_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// slowFeed is a feed whose Gather takes time. It calls during before it
// gathers, and after afterwards.
type slowFeed struct {
	feed
	during, after func()
}

func (f *slowFeed) slowly(before time.Time) ([]spool.Stage, bool) {
	time.Sleep(10 * time.Millisecond)
	if f.during != nil {
		f.during()
	}
	stages, more := f.gather(before)
	if f.after != nil {
		f.after()
	}
	return stages, more
}

// openSlow opens a journal on a disk whose fsync takes time.
func openSlow(t *testing.T, f *slowFeed) *spool.Journal {
	t.Helper()
	disk := crashfs.New(1)
	j, err := spool.NewJournal(spool.JournalSettings{Dir: disk.Dir(), RunID: "run", Interval: time.Second, Gather: f.slowly})
	if err != nil {
		t.Fatal(err)
	}
	disk.Inject(func(op crashfs.Op) error {
		if op.Call == crashfs.CallSync {
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	})
	return j
}

// Given a line that is added after a commit has begun and before it gathers,
// when nothing follows, then Synced passes the time of the line.
func TestSynced_LineAddedWhileGathering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &slowFeed{feed: feed{block: 1}}
		j := openSlow(t, f)
		var added time.Time
		f.during = func() {
			if added.IsZero() { // its source is dirty already, so MarkDirty is not called
				f.add("{}\n")
				added = time.Now()
			}
		}
		f.add("{}\n")
		j.MarkDirty()
		time.Sleep(time.Hour)
		if at := j.Synced(); added.IsZero() || !at.After(added) {
			t.Errorf("Synced is %v before a line committed an hour ago", added.Sub(at))
		}
		if idle := time.Since(j.Synced()); idle != 0 {
			t.Errorf("no change waits for the disk, but Synced is %v ago", idle)
		}
		closeJournal(t, j)
	})
}

// Given a line that is added after a commit has gathered, when the commit ends,
// then Synced has not passed the line. It does after the next commit.
func TestSynced_LineAddedAfterGathering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &slowFeed{feed: feed{block: 1}}
		j := openSlow(t, f)
		var added time.Time
		f.after = func() {
			if added.IsZero() {
				f.add("{}\n")
				added = time.Now()
				j.MarkDirty()
			}
		}
		f.add("{}\n")
		j.MarkDirty()
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if at := j.Synced(); added.IsZero() || at.After(added) {
			t.Errorf("Synced is %v after a line that is not on disk", at.Sub(added))
		}
		time.Sleep(2 * time.Second)
		if at := j.Synced(); !at.After(added) {
			t.Errorf("Synced is still %v before the line", added.Sub(at))
		}
		closeJournal(t, j)
	})
}
