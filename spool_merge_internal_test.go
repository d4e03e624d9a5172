package s3sink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// inSpool runs a test in a bubble, with a sink whose objects stay open.
func inSpool(t *testing.T, f func(*testing.T, *Sink, *shelf, *crashfs.FS)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		bucket := kindShelf(t)
		disk := crashfs.New(1)
		sink := openOn(t, disk, bucket, func(c *Config) { c.MaxObjectAge, c.MaxObjectEvents = 24*time.Hour, 0 })
		defer func() { // also if the test fails
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			sink.Close(ctx)
			checkHeld(t, sink.batcher)
		}()
		f(t, sink, bucket, disk)
	})
}

// trackBlock tracks the given number of events as a block of their own. The
// block is on disk when trackBlock returns.
func trackBlock(t *testing.T, sink *Sink, events int) {
	t.Helper()
	for range events {
		if err := sink.TrackLine(fmt.Appendf(nil, `{"src":"a","n":%d}`, sink.Stats().Accepted)); err != nil {
			t.Fatal(err)
		}
	}
	sink.own.cutBlock(sink.own.current)
	time.Sleep(DefaultCommitInterval)
	checkHeld(t, sink.batcher)
}

// failReads makes every read of disk fail for d, and then more reads.
func failReads(disk *crashfs.FS, d time.Duration, more int32) {
	until := time.Now().Add(d)
	var late atomic.Int32
	disk.Inject(func(op crashfs.Op) error {
		if op.Call == crashfs.CallRead && (time.Now().Before(until) || late.Add(1) <= more) {
			return syscall.EIO
		}
		return nil
	})
}

// mergedBlocks returns the number of pending blocks that other blocks were
// merged into.
func mergedBlocks(b *batcher) (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for blk := range b.pending {
		if blk.spooled && blk.held > spooledBytes {
			n++
		}
	}
	return n
}

// checkHeld checks that the budget, the partitions, the waiters and the bytes
// on disk match the pending blocks.
func checkHeld(t *testing.T, b *batcher) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var held, spooled int64
	of := map[*partition]int64{}
	wanted := map[*waiter]int{}
	for blk := range b.pending {
		held += blk.held
		if blk.spooled {
			spooled += blk.held
		}
		if blk.spooled && blk.chunks != nil {
			t.Error("a block on disk keeps its lines, too")
		}
		if !blk.sealed {
			of[blk.part] += blk.held
		}
		for w := range b.waiters {
			if w.wants(blk) {
				wanted[w]++
			}
		}
	}
	if used, _ := b.budget.Used(); used != held || spooled != b.spooledBudget {
		t.Errorf("%d bytes are used and %d remember what is on disk, but blocks hold %d and %d", used, b.spooledBudget, held, spooled)
	}
	for e := b.open.Front(); e != nil; e = e.Next() {
		if p := e.Value.(*partition); p.held.Load() != of[p] {
			t.Errorf("a partition holds %d bytes, its blocks %d", p.held.Load(), of[p])
		}
	}
	for w := range b.waiters {
		if w.blocks != wanted[w] || w.blocks == 0 {
			t.Errorf("a waiter waits for %d blocks, but %d are there", w.blocks, wanted[w])
		}
	}
}

// Given many blocks of one object on disk, then only the first block costs a
// record, and the counts are the same as without merging.
func TestMergedBlocks_Memory(t *testing.T) {
	t.Parallel()
	inSpool(t, func(t *testing.T, sink *Sink, bucket *shelf, _ *crashfs.FS) {
		const blocks = 500
		began := time.Now()
		for n := range int64(blocks) {
			trackBlock(t, sink, 2)
			st := sink.Stats()
			if want := spooledBytes + n*extentBytes; st.Memory != want || st.PendingBlocks != 1 {
				t.Fatalf("%d blocks on disk hold %d bytes and are %d, want %d and 1", n+1, st.Memory, st.PendingBlocks, want)
			}
			if st.Pending != 2*n+2 || st.Accepted != 2*n+2 || !st.Oldest.Equal(began) {
				t.Fatalf("%d events, and the first %v after it was tracked: %+v", 2*n+2, st.Oldest.Sub(began), st)
			}
		}
		if err := sink.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := sink.Stats(); st.Delivered != 2*blocks || st.Pending != 0 || st.Objects != 1 || st.Memory != 0 {
			t.Errorf("%+v", st)
		}
		bucket.check(t, 0, nil)
		if got := len(bucket.lines(t)); got != 2*blocks {
			t.Errorf("%d lines, want %d", got, 2*blocks)
		}
	})
}

// Given merged blocks, then all their events share the outcome of the object.
func TestMergedBlocks_SettleTogether(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		until time.Duration // the disk cannot be read
		shut  bool          // S3 is busy
		drop  bool
		want  Stats
	}{
		"delivered":   {want: Stats{Delivered: 9}},
		"quarantined": {until: 2 * time.Hour, want: Stats{Quarantined: 9}},
		"left":        {shut: true, want: Stats{Pending: 9}},
		"dropped":     {shut: true, drop: true, want: Stats{Dropped: 9}},
	} {
		t.Run(name, func(t *testing.T) {
			inSpool(t, func(t *testing.T, sink *Sink, bucket *shelf, disk *crashfs.FS) {
				for n := range 3 {
					trackBlock(t, sink, 2+n)
				}
				bucket.shut = c.shut
				failReads(disk, c.until, 0)
				var sealed []*spool.Segment
				for seg := range sink.batcher.contents {
					sealed = append(sealed, seg)
				}
				patience := 3 * time.Hour
				if c.shut {
					patience = time.Minute // S3 is tried each second
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				err := sink.Flush(ctx)
				if c.shut != errors.Is(err, context.DeadlineExceeded) || (c.until > 0) != errors.Is(err, ErrDamaged) {
					t.Errorf("Flush: %v", err)
				}
				if c.drop {
					sink.batcher.settle(sealed[0], dropped)
				}
				st := sink.Stats()
				got := Stats{Delivered: st.Delivered, Quarantined: st.Quarantined, Pending: st.Pending, Dropped: st.Dropped}
				if got != c.want || st.Accepted != 9 || len(sealed) != 1 {
					t.Errorf("%+v of %d objects, want %+v", st, len(sealed), c.want)
				}
			})
		})
	}
}

// Given waiters for some events of an object, then each waiter waits for
// exactly the events before its call, and counts their damage once, however the
// blocks are merged.
func TestMergedBlocks_Waiters(t *testing.T) {
	t.Parallel()
	inSpool(t, func(t *testing.T, sink *Sink, _ *shelf, disk *crashfs.FS) {
		b := sink.batcher
		other, err := sink.Source("b")
		if err != nil {
			t.Fatal(err)
		}
		pending := func(want int) {
			t.Helper()
			if got := sink.Stats().PendingBlocks; got != want {
				t.Errorf("%d blocks are pending, want %d", got, want)
			}
		}
		trackBlock(t, sink, 1)
		trackBlock(t, sink, 2)
		pending(1)
		first := b.await(nil) // waits for 3 events
		none := b.await(other)
		trackBlock(t, sink, 4)
		pending(2) // first waits for only one of the two blocks
		trackBlock(t, sink, 8)
		pending(2)
		if err := sink.TrackLine([]byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		second := b.await(sink.own) // waits for 16 events; 1 is in an open block
		if first.blocks != 1 || second.blocks != 3 {
			t.Errorf("they wait for %d and %d blocks, want 1 and 3", first.blocks, second.blocks)
		}
		trackBlock(t, sink, 15) // in the open block
		pending(2)
		if second.blocks != 2 {
			t.Errorf("two of three blocks are one, but %d are waited for", second.blocks)
		}
		trackBlock(t, sink, 32)
		pending(3)
		b.abandon(second)
		third := b.await(sink.own) // waits for 63 events
		trackBlock(t, sink, 64)
		pending(4)

		failReads(disk, 2*time.Hour, 0)
		if !none.wait(t.Context(), nil) || first.damaged+third.damaged != 0 {
			t.Error("they were told before the object was sealed")
		}
		if err := sink.Flush(t.Context()); !errors.Is(err, ErrDamaged) {
			t.Errorf("Flush: %v", err)
		}
		if !first.wait(t.Context(), nil) || !third.wait(t.Context(), nil) || first.damaged != 3 || third.damaged != 63 {
			t.Errorf("%d and %d events that were waited for are damaged, want 3 and 63", first.damaged, third.damaged)
		}
		if st := sink.Stats(); st.Quarantined != 127 || st.Pending != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// Given a bucket and a disk that fail, when Flush is called at any time, then
// each Flush returns, its events are in S3, and the budget matches the pending
// blocks.
func TestMergedBlocks_ConcurrentFlushes(t *testing.T) {
	t.Parallel()
	var folded atomic.Int64
	for seed := range uint64(20) {
		inSpool(t, func(t *testing.T, sink *Sink, bucket *shelf, disk *crashfs.FS) {
			rng := rand.New(rand.NewPCG(seed, 7))
			var wg sync.WaitGroup
			defer wg.Wait()
			for n := range 150 {
				src, err := sink.Source(string(rune('a' + rng.IntN(2))))
				if err != nil {
					t.Fatal(err)
				}
				line := fmt.Sprintf(`{"src":"%s","n":%d}`, src.id, n)
				if err := src.TrackLine([]byte(line)); err != nil {
					t.Fatal(err)
				}
				switch rng.IntN(10) {
				case 0, 1, 2, 3:
					src.mu.Lock()
					current := src.current
					src.mu.Unlock()
					if current != nil { // nil: a Flush has sealed it
						src.cutBlock(current)
					}
				case 4, 5:
					time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
				case 6:
					bucket.mu.Lock()
					bucket.shut = !bucket.shut
					bucket.mu.Unlock()
				case 7:
					if kinds := crashfs.Kinds(); rng.IntN(3) == 0 {
						disk.FailAt(rng.IntN(9), kinds[rng.IntN(len(kinds))])
					}
				case 8:
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(20))*time.Second)
					wg.Go(func() {
						defer cancel()
						err := src.Flush(ctx)
						bucket.mu.Lock()
						defer bucket.mu.Unlock()
						if err == nil && !slices.Contains(bucket.lines(t), line) {
							t.Errorf("seed %d: flushed, and %s is not in S3", seed, line)
						}
					})
				}
				checkHeld(t, sink.batcher)
			}
			folded.Add(mergedBlocks(sink.batcher))
			bucket.mu.Lock()
			bucket.shut = false
			bucket.mu.Unlock()
			if err := sink.Close(t.Context()); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			bucket.check(t, seed, nil)
			if st := sink.Stats(); st.Delivered != 150 || len(bucket.lines(t)) != 150 {
				t.Errorf("seed %d: %+v", seed, st)
			}
		})
	}
	if folded.Load() == 0 {
		t.Error("no block was one with another: that shows nothing")
	}
}
