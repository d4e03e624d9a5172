package s3sink

import (
	"slices"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
)

const (
	// spooledBytes is charged to MaxMemory for the record of a block whose frame
	// is on disk.
	spooledBytes = 256

	// extentBytes is charged for a block on disk that is merged into another
	// one: only the position of its frame is kept.
	extentBytes = 32
)

// gather returns the unstaged lines of blocks without a frame in the journal,
// if they may be older than before, and whether younger ones remain. The
// journal calls it at the beginning of a commit, so a commit writes every line
// that was added before it began. A source is in the dirty list while it has
// unstaged lines. This must not happen:
//
//  1. A commit takes the dirty list and collects the lines of source A.
//  2. Track adds another line to A. The dirty flag of A is still set, so Track
//     does not put A into the list.
//  3. The commit clears the flag of A. No later commit collects the line, and a
//     SyncEach caller is told that it is on disk.
//
// So appendStages collects the lines and clears the flag in one critical section
// of Source.mu: a line is either collected, or sets the flag again.
func (b *batcher) gather(before time.Time) (all []spool.Stage, more bool) {
	b.mu.Lock()
	dirty := b.dirty
	b.dirty = nil
	b.mu.Unlock()
	var later []*Source
	for _, s := range dirty {
		var undue bool
		if all, undue = s.appendStages(all, before); undue {
			later = append(later, s)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = append(b.dirty, later...)
	return all, len(later) > 0
}

// unwrittenBytes returns an upper bound of the bytes that the journal may still
// write for accepted events, or 0 if room exceeds every possible bound. A line in
// memory may be written three times: as a stage; again by a recovery that cannot
// know that the stage is on disk; and in a frame, which may be as long as its
// lines. A running recovery also compresses staged lines of previous runs, at
// most MaxMemory for each run.
func (b *batcher) unwrittenBytes(room int64) int64 {
	most := b.budget.Size()
	if room > 4*most+spareRoom {
		return 0
	}
	used, _ := b.budget.Used()
	b.mu.Lock()
	defer b.mu.Unlock()
	bytes := 3 * (used - b.spooledBudget)
	if b.recovering {
		bytes += min(most, b.journal.PreviousBytes())
	}
	return bytes + spareRoom
}

// spareRoom is left for the metadata of the file system.
const spareRoom = 64 << 10

// appendStages appends the stages of one source. If younger lines remain, the
// source stays dirty.
func (s *Source) appendStages(all []spool.Stage, before time.Time) (_ []spool.Stage, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.sink.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	stage := func(blk *block) {
		switch {
		case blk.staged == blk.raw:
		case blk.dirtySince.After(before):
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
	blk.dirtySince = time.Now()
	blk.stagesInUse++
	return spool.Stage{
		Partition: blk.part.number, Block: blk.number, Source: blk.part.source.id, Day: blk.part.day,
		Offset: from, First: blk.first, Last: blk.last, Lines: lines,
		Release: func() { b.stageSynced(blk, events) },
	}
}

// stageSynced records that a stage is on disk, which holds the first events of
// its block. The journal calls it when it no longer reads the lines. The chunks
// are freed only then, and only when the block is in a segment. Otherwise:
//
//  1. A commit gathers lines that are in the chunks of block A.
//  2. A compressor finishes A and returns its chunks to the pool.
//  3. Track fills a chunk with the line of another source.
//  4. The commit writes that line as a line of A.
func (b *batcher) stageSynced(blk *block, events int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blk.stagesInUse--
	blk.syncedEvents = max(blk.syncedEvents, events)
	if blk.stagesInUse == 0 && blk.appended {
		b.freeLocked(blk)
	}
}

// frameSynced records that the frame of blk in seg is on disk, and frees its
// memory.
func (b *batcher) frameSynced(seg *spool.Segment, blk *block) {
	defer b.relieveIfShort()
	b.mu.Lock()
	defer b.mu.Unlock()
	blk.payload = 0
	if _, alive := b.pending[blk]; !alive {
		return
	}
	b.releaseLocked(blk, max(0, blk.held-spooledBytes))
	blk.spooled = true
	b.spooledBudget += blk.held
	b.mergeLocked(seg, blk)
}

// mergeLocked merges the record of blk into the record of the block before it in
// seg: both are settled together. Blocks are numbered, opened and written to disk
// in segment order, so the previous block is older, and is on disk too. The
// records stay separate while a caller waits for only one of them, because that
// caller must not be told about damaged events of the other one.
func (b *batcher) mergeLocked(seg *spool.Segment, blk *block) {
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
			w.blocks-- // stays above 0: w also waits for into
		}
	}
	into.events.Add(blk.events.Swap(0))
	b.spooledBudget -= blk.held - extentBytes
	b.releaseLocked(blk, blk.held-extentBytes)
	into.held, blk.held = into.held+extentBytes, 0
	delete(b.pending, blk)
	b.contents[seg] = slices.Delete(all, i, i+1)
}

// addRecovered counts a segment of a previous run as pending.
func (b *batcher) addRecovered(seg *spool.Segment, src *Source) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blk := &block{number: recoveredBlock, source: src, cut: true, appended: true, sealed: true, opened: seg.First}
	blk.events.Store(seg.Events)
	blk.syncedEvents = seg.Events
	b.pending[blk] = struct{}{}
	b.contents[seg] = []*block{blk}
	b.recoveredEvents += seg.Events
	for w := range b.waiters {
		if w.wants(blk) {
			w.blocks++
		}
	}
}

// quarantine counts damaged events of previous runs.
func (b *batcher) quarantine(events int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recoveredEvents += events
	b.settledEvents[quarantined] += events
}

// openRecovered returns a new segment for blocks of a previous run.
func (b *batcher) openRecovered(p *partition) *spool.Segment {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sequence++
	return spool.NewSegment(b.newHeader(p, b.sequence, time.Now()))
}

// sealRecovered counts and seals a segment with blocks of a previous run.
func (b *batcher) sealRecovered(seg *spool.Segment, src *Source, ready func(*spool.Segment)) {
	b.addRecovered(seg, src)
	b.mu.Lock()
	b.onSealed(seg, SealedByRecovery)
	b.mu.Unlock()
	b.spool.Seal(seg, func() { ready(seg) })
}

// dropUnspooled counts the events that are only in memory as dropped, after the
// journal has ended without writing them. A failed commit may have written some
// of them after all; then the next run delivers them.
func (b *batcher) dropUnspooled() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for blk := range b.pending {
		if lost := blk.events.Load() - blk.syncedEvents; lost > 0 && !blk.spooled {
			blk.events.Add(-lost)
			b.settledEvents[dropped] += lost
		}
	}
}

// endRecovery starts the compression of the blocks of this run that recovery has
// held back. It does not visit the pending blocks of previous runs: there may be
// many, and Track waits for b.mu.
func (b *batcher) endRecovery() {
	b.mu.Lock()
	b.recovering = false
	for w := range b.waiters { // each was created during recovery
		b.blockDoneLocked(w)
	}
	heldBack := b.heldBack
	b.heldBack = nil
	b.mu.Unlock()
	for _, blk := range heldBack {
		b.queueCompression(blk)
	}
}
