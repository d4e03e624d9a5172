package s3sink

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/budget"
	"github.com/s3sink/s3sink/internal/deflate"
	"github.com/s3sink/s3sink/internal/spool"
)

// batcher decides when a block and when an object closes.
//
// Source.mu guards the open block of a source, and mu guards whole blocks and
// segments. mu is held for a few pointer operations, never across compression,
// disk or network. The lock order is Source.mu, then batcher.mu, then the locks
// of the budget, the pool and the uploader, which call back without their lock.
// The order prevents this deadlock:
//
//  1. Track holds Source.mu of A, because it adds a line, and waits for
//     batcher.mu to open a block.
//  2. The age timer, Flush or relief holds batcher.mu, because it looks for
//     partitions to seal, and waits for Source.mu of A to seal one.
//
// So a function that seals partitions first collects them under batcher.mu,
// unlocks it, and then seals each one under its Source.mu. Another goroutine may
// have sealed the partition in between: seal checks that.
type batcher struct {
	lim    batchLimits
	budget *budget.Budget
	pool   *deflate.Pool
	spool  spool.Spool

	journal *spool.Journal // the spool, or nil without a SpoolDir

	newHeader func(p *partition, sequence uint64, opened time.Time) spool.Header
	onSealed  func(*spool.Segment, SealReason) // called with mu held
	upload    func(*spool.Segment)             // called when the segment is durable, possibly with mu held
	stuck     func() []*spool.Segment          // parked segments, while others can be uploaded; called with mu held

	mu       sync.Mutex
	closed   bool
	open     list.List // of *partition, in the order of opening
	blocks   uint64    // opened so far
	pending  map[*block]struct{}
	waiters  map[*waiter]struct{}
	sequence uint64
	contents map[*spool.Segment][]*block // segments that are not delivered

	relief          sync.WaitGroup
	relieving       bool // the goroutine of relief runs
	reliefRequested bool // it must make another pass

	partitions uint64    // opened so far
	dirty      []*Source // sources with unstaged lines

	spooledBudget int64 // bytes of the budget for pending blocks with frames on disk
	recovering    bool  // segments of previous runs are not all known yet

	// heldBack are the blocks that were cut during recovery. They are not
	// compressed yet: their frames would be memory that is not in the budget.
	heldBack []*block

	recoveredEvents          int64
	accepted                 int64 // events of blocks that were cut
	settledEvents            [fates]int64
	objects, bytes, rawBytes int64 // delivered
}

// fate is the final state of an accepted event.
type fate int

const (
	delivered   fate = iota
	quarantined      // its object is damaged
	dropped          // abandoned by Close, or tracked while Config.Disabled
	fates
)

type batchLimits struct {
	object     spool.Limits
	age        time.Duration
	partitions int
	block      int // raw bytes of a block
	busyBlock  int // the same while all compressors are busy
}

func newBatchLimits(c *Config) batchLimits {
	// A tenth of an object: an object is at least nine tenths full when the
	// next block does not fit. A sixteenth of the memory: several blocks can be
	// compressed and uploaded at once.
	most := int(min(c.MaxObjectBytes/10, c.MaxMemory/16))
	return batchLimits{
		object:     spool.Limits{Bytes: c.MaxObjectBytes, Events: c.MaxObjectEvents},
		age:        c.MaxObjectAge,
		partitions: c.MaxOpenPartitions,
		block:      min(minBlock, most),
		busyBlock:  min(maxBlock, most),
	}
}

// partition is a source and a received-day, from the first line until it is
// sealed. It has at most one open block, any number of cut blocks that are not
// in a segment yet, and at most one open segment.
type partition struct {
	source *Source
	day    time.Time

	// Guarded by Source.mu.
	block       *block
	sealed      bool
	interrupted bool // events of another day arrived after its last block was cut

	// Guarded by batcher.mu.
	number      uint64
	lastCut     *block
	lastOpened  *block
	seg         *spool.Segment
	objectSince time.Time // first event of the open object
	element     *list.Element
	age         *time.Timer

	heldByCut int64 // part of held, for blocks that are cut and not in seg yet

	held   atomic.Int64 // bytes of the budget
	events atomic.Int64 // in seg, in cut blocks and in block; counted only with MaxObjectEvents
}

// full reports whether a block with that many raw bytes should be cut now.
func (b *batcher) full(raw int) bool {
	return raw > b.lim.busyBlock || raw > b.lim.block && !b.pool.Busy()
}

// hold charges bytes of the budget to an open block.
func (b *batcher) hold(blk *block, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blk.held += bytes
}

// openBlock registers a new block of p, and p itself if it is new. ok is false
// after Close. excess reports too many open partitions: the caller must call
// closeExcess after it has released its lock.
func (b *batcher) openBlock(p *partition, held int64) (excess, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, false
	}
	p.block = &block{part: p, source: p.source, held: held, startsObject: p.interrupted, number: b.blocks, opened: time.Now()}
	p.block.dirtySince = p.block.opened
	p.interrupted = false
	p.lastOpened = p.block
	b.blocks++
	b.pending[p.block] = struct{}{}
	if p.seg == nil && (p.lastCut == nil || p.lastCut.appended) {
		p.objectSince = p.block.opened
	}
	if p.element == nil {
		b.partitions++
		p.number = b.partitions
		p.element = b.open.PushBack(p)
		p.age = time.AfterFunc(b.lim.age, func() { p.source.expire(p) })
	}
	return b.open.Len() > b.lim.partitions, true
}

// closeExcess seals the partitions that were opened first until
// MaxOpenPartitions are left. Two callers may pick the same partition; seal
// ignores the second one.
func (b *batcher) closeExcess() {
	for {
		b.mu.Lock()
		var first *partition
		if b.open.Len() > b.lim.partitions {
			first = b.open.Front().Value.(*partition)
		}
		b.mu.Unlock()
		if first == nil {
			return
		}
		first.source.seal(first, SealedByPartitions)
	}
}

// cutLocked closes an open block and queues it for compression, or holds it back
// during recovery. The caller holds b.mu and the source's lock.
func (b *batcher) cutLocked(blk *block) {
	p := blk.part
	blk.cut = true
	b.accepted += blk.events.Load()
	p.heldByCut += blk.held
	p.lastCut = blk
	p.source.queue = append(p.source.queue, blk)
	if b.recovering {
		b.heldBack = append(b.heldBack, blk)
		return
	}
	b.queueCompression(blk)
}

func (b *batcher) queueCompression(blk *block) {
	b.pool.Go(func(e *deflate.Encoder) { b.compress(e, blk) })
}

// compress makes the frame of a block. It runs on a worker and takes b.mu only
// afterwards.
func (b *batcher) compress(e *deflate.Encoder, blk *block) {
	compressed, err := e.Frame(blk.chunks)
	frame := &spool.Frame{Frame: compressed, Events: blk.events.Load(), First: blk.first, Last: blk.last}
	defer b.relieveIfShort() // compression may have freed less than relief expected

	b.mu.Lock()
	defer b.mu.Unlock()
	blk.frame, blk.framed = frame, true
	if b.journal == nil {
		b.freeLocked(blk)
	}
	if err != nil { // cannot happen: it is compressed into memory
		b.releaseLocked(blk, blk.held)
		b.settleLocked(blk, dropped)
	}
	b.appendFramedLocked(blk.part.source)
}

// appendFramedLocked appends the compressed blocks of a source to segments, in
// the order of their cut, up to the first block that is not compressed yet.
func (b *batcher) appendFramedLocked(s *Source) {
	for len(s.queue) > 0 && s.queue[0].framed {
		blk := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		blk.appended = true
		blk.part.heldByCut -= blk.held
		b.appendLocked(blk)
		if b.journal != nil && blk.stagesInUse == 0 {
			b.freeLocked(blk)
		}
	}
	if len(s.queue) == 0 {
		s.queue = nil
	}
}

// appendLocked appends a block to the open segment of its partition, and seals
// segments before and after it as the limits demand.
func (b *batcher) appendLocked(blk *block) {
	p := blk.part
	switch {
	case p.seg == nil:
	case blk.startsObject:
		b.sealSegmentLocked(p, SealedByClock)
	case !p.seg.Fits(blk.frame, b.lim.object):
		b.sealSegmentLocked(p, SealedBySize)
	}
	if _, alive := b.pending[blk]; alive {
		b.addToSegmentLocked(p, blk)
	}
	switch {
	case p.seg == nil:
	case blk.sealsAfter != 0:
		b.sealSegmentLocked(p, blk.sealsAfter)
	case b.lim.object.Events > 0 && p.seg.Events >= b.lim.object.Events:
		b.sealSegmentLocked(p, SealedByEvents)
		p.objectSince = p.nextOpenedLocked()
	}
}

// nextOpenedLocked returns the opening time of the first block that is not in a
// segment yet, or of the last block if all are.
func (p *partition) nextOpenedLocked() time.Time {
	for _, blk := range p.source.queue {
		if blk.part == p {
			return blk.opened
		}
	}
	return p.lastOpened.opened
}

func (b *batcher) addToSegmentLocked(p *partition, blk *block) {
	seg := p.seg
	if seg == nil {
		b.sequence++
		seg = spool.NewSegment(b.newHeader(p, b.sequence, time.Now()))
	}
	frame := *blk.frame
	blk.frame = nil
	if b.journal != nil {
		blk.payload = int64(len(frame.Payload))
		frame.Partition, frame.Block = p.number, blk.number
		frame.Durable = func() { b.frameSynced(seg, blk) }
	}
	if err := b.spool.Append(seg, frame); err != nil {
		b.releaseLocked(blk, blk.held)
		b.settleLocked(blk, dropped)
		return
	}
	if p.seg == nil {
		p.seg, p.objectSince = seg, blk.opened
	}
	b.contents[seg] = append(b.contents[seg], blk)
}

func (b *batcher) sealSegmentLocked(p *partition, why SealReason) {
	seg := p.seg
	p.seg = nil
	p.events.Add(-seg.Events)
	for _, blk := range b.contents[seg] {
		p.held.Add(-blk.held)
		blk.sealed = true
	}
	b.onSealed(seg, why) // before the upload, so that hooks get Sealed first
	b.spool.Seal(seg, func() { b.upload(seg) })
}

// seal closes p. Its blocks become an object when they are compressed, and the
// next line of that day opens another partition. The caller holds the source's
// lock.
func (b *batcher) seal(p *partition, why SealReason) {
	if p.sealed {
		return
	}
	p.sealed = true
	b.mu.Lock()
	defer b.mu.Unlock()
	p.age.Stop()
	b.open.Remove(p.element)
	switch {
	case p.block != nil:
		p.block.sealsAfter = why
		b.cutLocked(p.block)
		p.block = nil
	case p.lastCut != nil && !p.lastCut.appended:
		p.lastCut.sealsAfter = why
	case p.seg != nil:
		b.sealSegmentLocked(p, why)
	}
}

// untilDue returns the time until the open object of p reaches MaxObjectAge.
func (b *batcher) untilDue(p *partition) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Until(p.objectSince.Add(b.lim.age))
}

// settle records the fate of a sealed segment and removes it from the spool.
func (b *batcher) settle(seg *spool.Segment, as fate) {
	defer b.relieveIfShort()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, blk := range b.contents[seg] {
		b.settleLocked(blk, as)
	}
	delete(b.contents, seg)
	if as == delivered {
		b.objects++
		b.bytes += seg.Size()
		b.rawBytes += seg.Raw
	}
	b.spool.Remove(seg)
}

// countDisabled counts an event of a disabled sink as accepted and dropped at
// once, so that the counts balance at any moment.
func (b *batcher) countDisabled() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	b.accepted++
	b.settledEvents[dropped]++
	return nil
}

// settleLocked records the fate of a block, frees its memory and notifies its
// waiters. Every accepted event ends here, except in countDisabled and
// dropUnspooled.
func (b *batcher) settleLocked(blk *block, as fate) {
	events := blk.events.Load()
	b.settledEvents[as] += events
	delete(b.pending, blk)
	if blk.spooled {
		b.spooledBudget -= blk.held
	}
	b.budget.Give(blk.held)
	blk.held = 0
	for w := range b.waiters {
		if !w.wants(blk) {
			continue
		}
		if as == quarantined {
			w.damaged += events
		}
		b.blockDoneLocked(w)
	}
}

// releaseLocked returns n bytes of a block to the budget.
func (b *batcher) releaseLocked(blk *block, n int64) {
	blk.held -= n
	if !blk.sealed {
		blk.part.held.Add(-n)
	}
	if !blk.appended {
		blk.part.heldByCut -= n
	}
	b.budget.Give(n)
}

// freeLocked frees the lines of a block that has its frame.
func (b *batcher) freeLocked(blk *block) {
	if blk.chunks == nil {
		return
	}
	blk.free()
	payload := blk.payload
	if blk.frame != nil {
		payload = int64(len(blk.frame.Payload))
	}
	b.releaseLocked(blk, blk.held-min(blk.held, payload+recordBytes))
}

// eventCount returns the number of events with a fate.
func (b *batcher) eventCount(as fate) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.settledEvents[as]
}

func (b *batcher) isRecovering() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.recovering
}

func (b *batcher) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// sealAll seals every open partition of s, or of every source if s is nil.
func (b *batcher) sealAll(s *Source, why SealReason) {
	b.mu.Lock()
	var parts []*partition
	for e := b.open.Front(); e != nil; e = e.Next() {
		if p := e.Value.(*partition); s == nil || p.source == s {
			parts = append(parts, p)
		}
	}
	b.mu.Unlock()
	for _, p := range parts {
		p.source.seal(p, why)
	}
}

// close stops admission. When it returns, lines are refused, and every
// block is queued for compression or held back until recovery ends.
func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true // from now on openBlock returns false
	b.mu.Unlock()
	b.budget.Close()
	b.sealAll(nil, SealedByClose)
	b.relief.Wait()
}
