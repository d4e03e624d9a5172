package s3sink

import (
	"slices"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
)

const (
	// spooledBytes is charged for a block whose frame is on disk, and what is
	// remembered of it.
	spooledBytes = 256

	// extentBytes is charged for where a frame is on disk, if that is all that is
	// remembered of its block.
	extentBytes = 32
)

// gather returns the lines that the journal does not have, of blocks that have
// no frame in it either, if they may be from before a time; and whether there
// are others.
func (b *batcher) gather(before time.Time) (all []spool.Stage, more bool) {
	b.mu.Lock()
	dirty := b.dirty
	b.dirty = nil
	b.mu.Unlock()
	var later []*Source
	for _, s := range dirty {
		var undue bool
		if all, undue = s.stages(all, before); undue {
			later = append(later, s)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = append(b.dirty, later...)
	return all, len(later) > 0
}

// unwritten returns how many bytes may still be written for the events that were
// taken, or 0 if the room is more than that in any case. Each line in memory may
// be written as a stage, once more by a recovery that cannot know the stage to be
// on disk, and in a frame, which may be as long as its lines. A recovery that has
// not ended makes frames of lines of previous runs, at most MaxMemory of a run.
func (b *batcher) unwritten(room int64) int64 {
	most := b.budget.Size()
	if room > 4*most+spareRoom {
		return 0
	}
	used, _ := b.budget.Used()
	b.mu.Lock()
	defer b.mu.Unlock()
	bytes := 3 * (used - b.spooled)
	if b.recovering {
		bytes += min(most, b.journal.OldBytes())
	}
	return bytes + spareRoom
}

// spareRoom is for what the volume itself needs to write the rest.
const spareRoom = 64 << 10

// stages adds those of one source. If there are more, it stays dirty.
func (s *Source) stages(all []spool.Stage, before time.Time) (_ []spool.Stage, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.sink.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	stage := func(blk *block) {
		switch {
		case blk.staged == blk.raw:
		case blk.since.After(before):
			more = true
		default:
			all = append(all, b.stageLocked(blk))
		}
	}
	for _, blk := range s.queue {
		stage(blk)
	}
	for _, p := range s.parts {
		if p.block != nil {
			stage(p.block)
		}
	}
	s.dirty = more
	return all, more
}

func (b *batcher) stageLocked(blk *block) spool.Stage {
	lines, from := blk.unstaged()
	events := blk.events.Load()
	blk.since = time.Now()
	blk.views++
	return spool.Stage{
		Partition: blk.part.number, Block: blk.number, Source: blk.part.source.id, Day: blk.part.day,
		Offset: from, First: blk.first, Last: blk.last, Lines: lines,
		Release: func() { b.release(blk, events) },
	}
}

// release takes note that a stage is on disk, and with it the first events of the
// block.
func (b *batcher) release(blk *block, events int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blk.views--
	blk.onDisk = max(blk.onDisk, events)
	if blk.views == 0 && blk.appended {
		b.freeLocked(blk)
	}
}

// durable takes note that a frame of seg is on disk, so that its memory comes
// free.
func (b *batcher) durable(seg *spool.Segment, blk *block) {
	defer b.relieveIfShort()
	b.mu.Lock()
	defer b.mu.Unlock()
	blk.payload = 0
	if _, alive := b.pending[blk]; !alive {
		return
	}
	b.giveLocked(blk, max(0, blk.held-spooledBytes))
	blk.spooled = true
	b.spooled += blk.held
	b.foldLocked(seg, blk)
}

// foldLocked has the block before blk in seg stand for both: they end together.
// Blocks are numbered, opened and brought to the disk in the order of their
// segment, so it is the older one, and on disk too. They stay two while somebody
// waits for it alone, who must not hear of the other's events.
func (b *batcher) foldLocked(seg *spool.Segment, blk *block) {
	all := b.contents[seg]
	i := slices.Index(all, blk)
	if i < 1 {
		return
	}
	into := all[i-1]
	for w := range b.waiters {
		if w.wants(into) != w.wants(blk) {
			return
		}
	}
	for w := range b.waiters {
		if w.wants(blk) {
			w.blocks-- // it is not 0: into is wanted too
		}
	}
	into.events.Add(blk.events.Swap(0))
	b.spooled -= blk.held - extentBytes
	b.giveLocked(blk, blk.held-extentBytes)
	into.held, blk.held = into.held+extentBytes, 0
	delete(b.pending, blk)
	b.contents[seg] = slices.Delete(all, i, i+1)
}

// addRecovered takes a segment of an earlier run into the books.
func (b *batcher) addRecovered(seg *spool.Segment, src *Source) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blk := &block{number: recovered, source: src, cut: true, appended: true, sealed: true, opened: seg.First}
	blk.events.Store(seg.Events)
	blk.onDisk = seg.Events
	b.pending[blk] = struct{}{}
	b.contents[seg] = []*block{blk}
	b.recoveredEvents += seg.Events
	for w := range b.waiters {
		if w.wants(blk) {
			w.blocks++
		}
	}
}

// quarantine counts events of earlier runs that are damaged.
func (b *batcher) quarantine(events int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recoveredEvents += events
	b.settledEvents[quarantined] += events
}

// openRecovered returns a new segment for what an earlier run has left.
func (b *batcher) openRecovered(p *partition) *spool.Segment {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sequence++
	return spool.NewSegment(b.newHeader(p, b.sequence, time.Now()))
}

func (b *batcher) sealRecovered(seg *spool.Segment, src *Source, ready func(*spool.Segment)) {
	b.addRecovered(seg, src)
	b.mu.Lock()
	b.sealed(seg, SealedByRecovery)
	b.mu.Unlock()
	b.spool.Seal(seg, func() { ready(seg) })
}

// dropUnspooled counts the events that are in memory alone as dropped, when the
// journal has ended and could not write them. A commit that failed may have left
// some on the disk after all; then the next run delivers them.
func (b *batcher) dropUnspooled() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for blk := range b.pending {
		if lost := blk.events.Load() - blk.onDisk; lost > 0 && !blk.spooled {
			blk.events.Add(-lost)
			b.settledEvents[dropped] += lost
		}
	}
}

// endRecovery lets the segments of this run begin. What is pending of earlier
// ones may be very much, and is not looked at: Track waits for the lock.
func (b *batcher) endRecovery() {
	b.mu.Lock()
	b.recovering = false
	for w := range b.waiters { // each began before
		b.countLocked(w)
	}
	waiting := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	for _, blk := range waiting {
		b.compressSoon(blk)
	}
}
