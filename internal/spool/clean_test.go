package spool_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

var cleanDays = flag.Int("cleandays", 0, "days of traffic in TestCleaning_YearOfRefusals; 0: two")

// cleaning is a journal with small files, whose segments a test delivers or
// keeps.
type cleaning struct {
	t    *testing.T
	j    *spool.Journal
	feed feed
	runs int
	next uint64 // sequence of the next segment
	set  spool.JournalSettings
}

// open begins a run, and returns its recovery.
func (c *cleaning) open(dir vfs.Dir) *spool.Recovered {
	c.t.Helper()
	c.runs++
	c.set.Dir, c.set.RunID, c.set.Interval, c.set.Gather = dir, c.run(), time.Second, c.feed.gather
	var err error
	if c.j, err = spool.NewJournal(c.set); err != nil {
		c.t.Fatal(err)
	}
	j := c.j
	c.t.Cleanup(func() { // if the test fails early
		if c.j == j {
			j.Close()
		}
	})
	found, err := c.j.Recover(c.t.Context())
	if err != nil || len(found.DamagedFiles) > 0 || found.LostEvents() > 0 {
		c.t.Fatalf("recovered %+v, %v", found, err)
	}
	return found
}

func (c *cleaning) close() {
	c.t.Helper()
	closeJournal(c.t, c.j)
	c.j = nil
}

func (c *cleaning) run() string { return fmt.Sprintf("run-%06d", c.runs) }

// sealed seals a segment with frames of size random bytes.
func (c *cleaning) sealed(frames, size int) *spool.Segment {
	c.t.Helper()
	seg := c.unsealed(frames, size)
	done := make(chan struct{})
	c.j.Seal(seg, func() { close(done) })
	<-done
	return seg
}

func (c *cleaning) unsealed(frames, size int) *spool.Segment {
	c.t.Helper()
	c.next++
	seg := segment(c.run(), c.next)
	for i := range frames {
		appendFrame(c.t, c.j, seg, 1000+c.next*10+uint64(i), randomLine(c.next, size))
	}
	return seg
}

// traffic delivers segments as soon as they are sealed.
func (c *cleaning) traffic(segments, size int) {
	c.t.Helper()
	for range segments {
		c.j.Remove(c.sealed(1, size))
	}
	c.settle()
}

// settle waits until the journal is idle.
func (c *cleaning) settle() {
	c.t.Helper()
	if err := c.j.Commit(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	synctest.Wait()
}

// randomLine returns a line that does not compress.
func randomLine(seed uint64, size int) string {
	rng := rand.New(rand.NewPCG(seed, 99))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return fmt.Sprintf("%q\n", b)
}

func (c *cleaning) object(seg *spool.Segment) []byte {
	c.t.Helper()
	b, err := io.ReadAll(c.j.Object(seg))
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// live is an upper bound for the record bytes of a segment.
func live(seg *spool.Segment) int64 { return seg.Size() + 400 }

// Given a segment that stays, an open one and a block without a frame in the
// oldest file, when other segments worth ten files are delivered, then their
// files are removed. A reader of the first segment is not disturbed. Later runs
// recover all three unchanged, and clean in turn.
func TestCleaning_CopiesLiveRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const full = 20_000
		disk := crashfs.New(1)
		c := &cleaning{t: t, set: spool.JournalSettings{FileSize: full}}
		c.feed.block = 1
		c.open(disk.Dir())
		first := c.j
		kept := c.sealed(3, 500)
		c.unsealed(1, 300)
		c.feed.add("{\"n\":1}\n")
		want := c.object(kept)
		reading := c.j.Object(kept) // a very slow upload
		begun := make([]byte, 700)
		if _, err := io.ReadFull(reading, begun); err != nil {
			t.Fatal(err)
		}
		key := kept.Key
		for round := range 4 {
			copied := c.j.Copied()
			c.traffic(200, 1000)
			if got := c.j.Bytes(); got > 2*(live(kept)+1000)+2*full {
				t.Errorf("round %d: the spool has %d bytes", round, got)
			}
			if c.j.Copied() == copied {
				t.Errorf("round %d: nothing was copied, so the test proves nothing", round)
			}
			if !bytes.Equal(c.object(kept), want) {
				t.Errorf("round %d: the object has changed", round)
			}
			if c.j == first {
				rest, err := io.ReadAll(reading)
				if err != nil || !bytes.Equal(append(begun, rest...), want) {
					t.Errorf("an object that was being read: %d bytes, %v", len(rest), err)
				}
			}
			c.close()
			disk = disk.Kill()
			c.feed = feed{}
			found := c.open(disk.Dir())
			if len(found.Sealed) != 1 || len(found.Unfinished) != 1 || found.Unfinished[0].Segment == nil || len(found.Unfinished[0].Blocks) != 1 {
				t.Fatalf("round %d: recovered %+v", round, found)
			}
			if kept = found.Sealed[0]; kept.Key != key || !bytes.Equal(c.object(kept), want) {
				t.Errorf("round %d: the object is not what it was", round)
			}
			if lines, err := found.Unfinished[0].Blocks[0].Lines(); string(lines) != "{\"n\":1}\n" || err != nil {
				t.Errorf("round %d: lines %q, %v", round, lines, err)
			}
			if round == 3 {
				c.j.Remove(kept)
				open := found.Unfinished[0].Segment
				c.traffic(200, 1000)
				f := frame(t, "{\"n\":1}\n", day)
				f.Run, f.Partition, f.Block = found.Unfinished[0].Blocks[0].Run, 1, 1
				if err := c.j.Append(open, f); err != nil {
					t.Fatal(err)
				}
				c.j.Seal(open, func() { c.j.Remove(open) })
				c.settle()
				c.close()
			}
		}
		if left, err := disk.Dir().List(); err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
	})
}

// Given a bucket that refuses one object in a thousand for three months, with a
// restart, a kill or a power cut every day, then the spool never exceeds twice
// its live bytes and two files, and cleaning copies less than was written.
func TestCleaning_YearOfRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const full, perDay = 64 << 10, 1440
		rng := rand.New(rand.NewPCG(1, 1))
		disk := crashfs.New(1)
		c := &cleaning{t: t, set: spool.JournalSettings{FileSize: full}}
		type stay struct {
			seg  *spool.Segment
			crc  uint32
			days int
		}
		stays := map[string]*stay{} // by key
		var copied, written, longest int64
		for day := range cmp.Or(*cleanDays, 2) {
			for _, seg := range c.open(disk.Dir()).Sealed {
				s := stays[seg.Key]
				switch {
				case s == nil: // delivered; a power cut took its record back
					c.j.Remove(seg)
				case seg.CRC32() != s.crc:
					t.Fatalf("day %d: %s has changed", day, seg.Key)
				default:
					s.seg = seg
				}
			}
			need := int64(0)
			for key, s := range stays {
				need += live(s.seg)
				if err := spool.Verify(c.j, s.seg); err != nil {
					t.Fatalf("day %d: %s: %v", day, key, err)
				}
			}
			for n := range perDay {
				seg := c.sealed(1+rng.IntN(3), 100+rng.IntN(1500))
				written += live(seg)
				if need += live(seg); rng.IntN(1000) > 0 {
					c.j.Remove(seg)
					need -= live(seg)
				} else {
					stays[seg.Key] = &stay{seg, seg.CRC32(), 90}
				}
				if n%10 > 0 && n < perDay-1 {
					continue
				}
				c.settle()
				longest = max(longest, c.j.Bytes())
				if got := c.j.Bytes(); n > 20 && got > 2*need+2*full {
					t.Fatalf("day %d: the spool has %d bytes, %d of them needed", day, got, need)
				}
			}
			for key, s := range stays {
				if s.days--; s.days == 0 {
					c.j.Remove(s.seg)
					delete(stays, key)
				}
			}
			c.settle()
			copied += c.j.Copied()
			if day%3 == 0 {
				c.close()
			}
			disk.Stop()
			next := disk.Kill()
			if day%3 == 2 {
				next = disk.Crash(rng)
			}
			if day%3 > 0 {
				c.j.Close()
				c.j = nil
			}
			disk = next
		}
		if copied == 0 || copied > written {
			t.Errorf("%d bytes were copied, and %d others written", copied, written)
		}
		for _, seg := range c.open(disk.Dir()).Sealed {
			delete(stays, seg.Key)
			c.j.Remove(seg)
		}
		c.close()
		if left, err := disk.Dir().List(); err != nil || len(left) > 0 || len(stays) > 0 {
			t.Errorf("left %v, %v; missing %d", left, err, len(stays))
		}
		t.Logf("%d segments, %d bytes written, %d copied, spool of at most %d", c.next, written, copied, longest)
	})
}

// Given a spool near its limit, most of it live, then it is
// cleaned.
func TestCleaning_NearLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 400_000
		c := &cleaning{t: t, set: spool.JournalSettings{FileSize: limit / 8, Limit: limit}}
		c.open(crashfs.New(1).Dir())
		var kept int64
		for kept < limit/2 {
			kept += live(c.sealed(1, 1000))
		}
		for range 40 {
			c.traffic(10, 1000)
			if got := c.j.Bytes(); got > limit {
				t.Fatalf("the spool has %d bytes, and keeps %d of them", got, kept)
			}
		}
		c.close()
	})
}

// Given many live bytes in the oldest file, then each commit copies at most one
// step.
func TestCleaning_BoundedStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := crashfs.New(1)
		c := &cleaning{t: t, set: spool.JournalSettings{FileSize: 3 << 20}}
		c.open(disk.Dir())
		for range 30 {
			c.sealed(1, 50_000)
		}
		for c.j.Copied() == 0 {
			c.traffic(1, 50_000)
		}
		var most, appended int
		disk.Inject(func(op crashfs.Op) error {
			switch op.Call {
			case crashfs.CallAppend:
				appended += op.Len
				most = max(most, appended)
			case crashfs.CallSync:
				appended = 0
			}
			return nil
		})
		before := c.j.Copied()
		c.traffic(100, 50_000)
		if copied := c.j.Copied() - before; copied < 1<<20 || most > 256<<10+2*60_000 {
			t.Errorf("a commit wrote %d bytes, of %d copied in all", most, copied)
		}
		disk.Inject(nil)
		c.close()
	})
}

// Given a disk that has no room for copies, or that cannot read the originals,
// then commits succeed and the cleaner retries later.
func TestCleaning_FailingDisk(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(crashfs.Op) error{
		"no room": func(op crashfs.Op) error {
			if op.Call == crashfs.CallAppend && op.Len > 50_000 {
				return syscall.ENOSPC
			}
			return nil
		},
		"no reads": func(op crashfs.Op) error {
			if op.Call == crashfs.CallRead {
				return syscall.EIO
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				disk := crashfs.New(1)
				c := &cleaning{t: t, set: spool.JournalSettings{FileSize: 200_000}}
				c.open(disk.Dir())
				var all []*spool.Segment
				for range 40 {
					all = append(all, c.sealed(1, 3000))
				}
				disk.Inject(fail)
				for range 20 {
					time.Sleep(15 * time.Second)
					c.traffic(25, 1000) // each ends with a commit that must succeed
				}
				if c.j.Copied() > 0 || c.j.Err() != nil {
					t.Fatalf("%d bytes were copied, and the last commit: %v", c.j.Copied(), c.j.Err())
				}
				disk.Inject(nil)
				time.Sleep(time.Minute) // without commits
				c.settle()
				if got := c.j.Bytes(); c.j.Copied() == 0 || got > 2*40*7000+2*200_000 {
					t.Errorf("%d bytes were copied later, and the spool has %d", c.j.Copied(), got)
				}
				for _, seg := range all {
					if err := spool.Verify(c.j, seg); err != nil {
						t.Error(err)
					}
				}
				c.close()
			})
		})
	}
}

// Given copies of a segment whose fsync failed before the process was killed, when
// the next run recovers them and removes the oldest file, then the object survives
// a power cut that takes bytes of the failed fsync.
func TestCleaning_CopiesOfFailedSync(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			disk := crashfs.New(seed)
			c := &cleaning{t: t, set: spool.JournalSettings{FileSize: 5000}}
			c.open(disk.Dir())
			kept := c.sealed(3, 300)
			want := c.object(kept)
			list, err := disk.Dir().List()
			if err != nil || len(list) != 1 {
				t.Fatalf("%v, %v, want one file", list, err)
			}
			oldest := list[0]
			var copying, failed bool
			disk.Inject(func(op crashfs.Op) error {
				switch {
				case failed:
					return crashfs.ErrStopped
				case op.Call == crashfs.CallRead: // by the cleaner: nothing else reads
					copying = true
				case op.Call == crashfs.CallSync && copying:
					failed = true
					return syscall.EIO
				}
				return nil
			})
			for n := 0; !failed; n++ {
				if n == 100 {
					t.Fatal("nothing was copied")
				}
				seg := c.unsealed(1, 1000)
				c.j.Seal(seg, func() { c.j.Remove(seg) })
				c.j.Commit(t.Context())
				synctest.Wait()
			}
			disk = disk.Kill()
			c.j.Close()

			if found := c.open(disk.Dir()); !slices.ContainsFunc(found.Sealed, func(s *spool.Segment) bool { return s.Key == kept.Key }) {
				t.Fatalf("seed %d: recovered %+v, want %s", seed, found, kept.Key)
			}
			c.traffic(20, 1000)
			if list, err := disk.Dir().List(); err != nil || slices.ContainsFunc(list, func(e vfs.Entry) bool { return e.Name == oldest.Name }) {
				t.Fatalf("seed %d: %v, %v, want %s gone", seed, list, err, oldest.Name)
			}
			next := disk.Crash(rand.New(rand.NewPCG(seed, 1)))
			c.j.Close()
			c.j = nil
			found := c.open(next.Dir())
			at := slices.IndexFunc(found.Sealed, func(s *spool.Segment) bool { return s.Key == kept.Key })
			if at < 0 || !bytes.Equal(c.object(found.Sealed[at]), want) {
				t.Errorf("seed %d: recovered %+v, want %s as it was", seed, found, kept.Key)
			}
			c.close()
		})
	}
}
