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
// Lines gather in blocks under their source's lock alone. Everything that
// happens to whole blocks and segments happens under mu, which is held for a
// few pointers at a time, never across compression, disk or network. Locks are
// taken in this order: Source.mu, batcher.mu, and then those of the budget,
// the pool and the uploader, which call back without a lock.
type batcher struct {
	lim    batchLimits
	budget *budget.Budget
	pool   *deflate.Pool
	spool  spool.Spool

	journal *spool.Journal // the spool, if it is one

	newHeader func(p *partition, sequence uint64, opened time.Time) spool.Header
	sealed    func(*spool.Segment, SealReason) // told under mu
	ready     func(*spool.Segment)             // durable: may be put; perhaps under mu
	stuck     func() []*spool.Segment          // those that wait for a person; asked under mu

	mu       sync.Mutex
	closed   bool
	open     list.List // of *partition, first opened first
	blocks   uint64    // opened so far
	pending  map[*block]struct{}
	waiters  map[*waiter]struct{}
	sequence uint64
	contents map[*spool.Segment][]*block // of those that are not delivered

	relief    sync.WaitGroup
	relieving bool // a goroutine of relief runs
	again     bool // and has been asked once more

	partitions uint64    // opened so far
	dirty      []*Source // with lines that the journal does not have

	spooled    int64 // bytes of the budget for pending blocks with frames on disk
	recovering bool  // segments of this run wait for what earlier ones have left

	waiting []*block // for that; a frame beside its lines would be memory that nobody counts

	recoveredEvents          int64
	accepted                 int64 // events of blocks that were cut
	settledEvents            [fates]int64
	objects, bytes, rawBytes int64 // delivered
}

// fate is what became of events that were accepted.
type fate int

const (
	delivered   fate = iota
	quarantined      // their object is damaged
	dropped          // given up by Close, or taken while Config.Disabled
	fates
)

type batchLimits struct {
	object     spool.Limits
	age        time.Duration
	partitions int
	block      int // raw bytes; more while the compressors are busy
	busyBlock  int
}

func newBatchLimits(c *Config) batchLimits {
	// A tenth of an object, so that one is at least nine tenths full when
	// the next block does not fit; and a sixteenth of the memory, so that a
	// few blocks are under way at once.
	most := int(min(c.MaxObjectBytes/10, c.MaxMemory/16))
	return batchLimits{
		object:     spool.Limits{Bytes: c.MaxObjectBytes, Events: c.MaxObjectEvents},
		age:        c.MaxObjectAge,
		partitions: c.MaxOpenPartitions,
		block:      min(minBlock, most),
		busyBlock:  min(maxBlock, most),
	}
}

// partition is a source and a received-day, from its first line until it is
// sealed: at most one open block, blocks on their way, one open segment.
type partition struct {
	source *Source
	day    time.Time

	// Under Source.mu.
	block  *block
	sealed bool
	later  bool // another day's events came since its last block was cut

	// Under batcher.mu.
	number uint64
	last   *block // cut last
	newest *block // opened last
	seg    *spool.Segment
	since  time.Time // first event of the object that is gathering
	place  *list.Element
	age    *time.Timer

	underWay int64 // of held, in blocks that are cut and not in seg yet

	held   atomic.Int64 // bytes of the budget
	events atomic.Int64 // in seg, on their way to it and in block; only with a limit
}

// full reports whether a block of raw bytes should be cut now.
func (b *batcher) full(raw int) bool {
	return raw > b.lim.busyBlock || raw > b.lim.block && !b.pool.Busy()
}

// hold adds bytes of the budget to an open block.
func (b *batcher) hold(blk *block, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blk.held += bytes
}

// openBlock registers a new block of p, and p itself if it is new. It reports
// false after Close, and whether there are too many partitions now, which the
// caller mends with closeExcess when it holds no lock.
func (b *batcher) openBlock(p *partition, held int64) (excess, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, false
	}
	p.block = &block{part: p, source: p.source, held: held, opensNew: p.later, number: b.blocks, opened: time.Now()}
	p.block.since = p.block.opened
	p.later = false
	p.newest = p.block
	b.blocks++
	b.pending[p.block] = struct{}{}
	if p.seg == nil && (p.last == nil || p.last.appended) {
		p.since = p.block.opened
	}
	if p.place == nil {
		b.partitions++
		p.number = b.partitions
		p.place = b.open.PushBack(p)
		p.age = time.AfterFunc(b.lim.age, func() { p.source.expire(p) })
	}
	return b.open.Len() > b.lim.partitions, true
}

// closeExcess seals the partitions that were opened first until there are not
// too many. Two callers may pick the same one; each looks again.
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

// cutLocked hands an open block to the compressors, as soon as segments of this run
// may begin. b.mu and the source's lock are held.
func (b *batcher) cutLocked(blk *block) {
	p := blk.part
	blk.cut = true
	b.accepted += blk.events.Load()
	p.underWay += blk.held
	p.last = blk
	p.source.queue = append(p.source.queue, blk)
	if b.recovering {
		b.waiting = append(b.waiting, blk)
		return
	}
	b.compressSoon(blk)
}

func (b *batcher) compressSoon(blk *block) {
	b.pool.Go(func(e *deflate.Encoder) { b.compress(e, blk) })
}

// compress makes the frame of a block, on a worker, without a lock.
func (b *batcher) compress(e *deflate.Encoder, blk *block) {
	compressed, err := e.Frame(blk.chunks)
	frame := &spool.Frame{Frame: compressed, Events: blk.events.Load(), First: blk.first, Last: blk.last}
	defer b.relieveIfShort() // what is left of the block may be less than was hoped

	b.mu.Lock()
	defer b.mu.Unlock()
	blk.frame, blk.framed = frame, true
	if b.journal == nil {
		b.freeLocked(blk)
	}
	if err != nil { // cannot happen: it is compressed into memory
		b.giveLocked(blk, blk.held)
		b.settleLocked(blk, dropped)
	}
	b.appendFramedLocked(blk.part.source)
}

// appendFramedLocked puts the source's finished blocks into segments, in the
// order they were cut, up to the first one that is not finished.
func (b *batcher) appendFramedLocked(s *Source) {
	for len(s.queue) > 0 && s.queue[0].framed {
		blk := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		blk.appended = true
		blk.part.underWay -= blk.held
		b.appendLocked(blk)
		if b.journal != nil && blk.views == 0 {
			b.freeLocked(blk)
		}
	}
	if len(s.queue) == 0 {
		s.queue = nil
	}
}

func (b *batcher) appendLocked(blk *block) {
	p := blk.part
	switch {
	case p.seg == nil:
	case blk.opensNew:
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
		p.since = p.nextOpenedLocked()
	}
}

// nextOpenedLocked returns when the first block that is not in a segment yet
// was opened, or the last one that was.
func (p *partition) nextOpenedLocked() time.Time {
	for _, blk := range p.source.queue {
		if blk.part == p {
			return blk.opened
		}
	}
	return p.newest.opened
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
		frame.Durable = func() { b.durable(seg, blk) }
	}
	if err := b.spool.Append(seg, frame); err != nil {
		b.giveLocked(blk, blk.held)
		b.settleLocked(blk, dropped)
		return
	}
	if p.seg == nil {
		p.seg, p.since = seg, blk.opened
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
	b.sealed(seg, why) // before it is ready, so that hooks hear of it first
	b.spool.Seal(seg, func() { b.ready(seg) })
}

// seal closes p: what it holds becomes an object as soon as it is compressed,
// and its next line opens another. The source's lock is held.
func (b *batcher) seal(p *partition, why SealReason) {
	if p.sealed {
		return
	}
	p.sealed = true
	b.mu.Lock()
	defer b.mu.Unlock()
	p.age.Stop()
	b.open.Remove(p.place)
	switch {
	case p.block != nil:
		p.block.sealsAfter = why
		b.cutLocked(p.block)
		p.block = nil
	case p.last != nil && !p.last.appended:
		p.last.sealsAfter = why
	case p.seg != nil:
		b.sealSegmentLocked(p, why)
	}
}

// due returns how long p may still gather.
func (b *batcher) due(p *partition) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Until(p.since.Add(b.lim.age))
}

// settled takes a sealed segment out of the books.
func (b *batcher) settled(seg *spool.Segment, as fate) {
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

// discard counts an event that is not kept, as accepted and dropped at once, so
// that the books balance at any moment.
func (b *batcher) discard() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	b.accepted++
	b.settledEvents[dropped]++
	return nil
}

// settleLocked takes a block out of the books, and tells who waits for it. It
// is the only place where events end, but for those that discard takes.
func (b *batcher) settleLocked(blk *block, as fate) {
	events := blk.events.Load()
	b.settledEvents[as] += events
	delete(b.pending, blk)
	if blk.spooled {
		b.spooled -= blk.held
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
		b.countLocked(w)
	}
}

// giveLocked gives back some of what a block holds.
func (b *batcher) giveLocked(blk *block, n int64) {
	blk.held -= n
	if !blk.sealed {
		blk.part.held.Add(-n)
	}
	if !blk.appended {
		blk.part.underWay -= n
	}
	b.budget.Give(n)
}

// freeLocked lets go of a block's lines, which are in a frame now.
func (b *batcher) freeLocked(blk *block) {
	if blk.chunks == nil {
		return
	}
	blk.free()
	payload := blk.payload
	if blk.frame != nil {
		payload = int64(len(blk.frame.Payload))
	}
	b.giveLocked(blk, blk.held-min(blk.held, payload+recordBytes))
}

// ended returns how many events have met a fate.
func (b *batcher) ended(as fate) int64 {
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

// sealAll seals every open partition, of one source or (nil) of all.
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

// close stops admission: when it returns, no line is taken any more, and every
// block is with the compressors, or waits for the end of a recovery.
func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true // no block is opened any more
	b.mu.Unlock()
	b.budget.Close()
	b.sealAll(nil, SealedByClose)
	b.relief.Wait()
}
