package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Recovered is what earlier runs have left.
type Recovered struct {
	Sealed []*Segment // complete, oldest first
	Tails  []Tail     // what was not complete, oldest first

	Torn        int64    // bytes at the ends of files that no commit had covered
	Damaged     []string // files that do not hold what had been brought to the disk
	DamagedSize int64    // bytes of them
	Kept        int64    // bytes of copies of those, and of what cannot be delivered
	Unkept      error    // why there is no copy of some, or nil
	Quarantined int64    // events of sealed segments of which nothing can be delivered
	Foreign     []string // files of another version, left as they are
	LastID      uint64   // that earlier runs have drawn: those of this one must be greater
}

// Lost returns how many events cannot be delivered, as far as seals tell.
func (r *Recovered) Lost() int64 {
	n := r.Quarantined
	for _, t := range r.Tails {
		for _, b := range t.Broken {
			n += b.Lost
		}
	}
	return n
}

// Tail is what is left of a partition of an earlier run: perhaps a segment that
// is not sealed, and perhaps blocks that have no frames, or none that counts.
type Tail struct {
	Segment *Segment // or nil
	Source  string
	Day     time.Time
	Blocks  []Leftover
	Ahead   int      // so many of them come before the segment
	Broken  []Broken // to remove once the blocks are in other segments
}

// Broken is a segment that damage has made holes into, or perhaps has cut. What
// is left of it goes into another one, because its key may be taken.
type Broken struct {
	Segment *Segment
	Lost    int64 // events that are missing, as far as its seal tells
}

// recovery is what one scan of all files finds.
type recovery struct {
	j        *Journal
	old      []*file
	found    Recovered
	segments map[segmentID]*oldSegment
	blocks   map[blockID]*oldBlock     // that have no frame
	parts    map[blockID]*oldPartition // by their id
	names    names
	each     bool             // what is known of each frame is kept, whatever that takes
	doubts   map[uint64]int64 // what is certain of a file that is not as a whole, by number
	doubtful []doubtful       // in order
	certain  int64            // how much of the file that is scanned is on disk
	holes    []hole           // in order
	again    bool             // what is applied was written by this run
	blind    bool             // what cannot be read is damaged
	changed  atomic.Bool      // a doubtful record is not any more what it was

	needSegments map[segmentID][]share
	needBlocks   map[blockID][]share
}

type oldBlock struct {
	stage  stageRecord // the first that was found
	last   time.Time
	pieces []piece
}

// doubtful is a record that can be read, but may not be on disk.
type doubtful struct {
	kind    recordType
	body    extent
	crc     uint32 // of the body, with the salt of its file
	segment segmentID
	block   blockID // of a stage
	index   uint64  // of a frame in its segment, or of a stage's piece in its block
	payload int64   // bytes at the end of the body
}

// patience is how often recovery is tried before what cannot be read counts as
// damaged, and before it goes on without copies of that.
const patience = 360

// errNoReads is a disk that gives nothing at all. It may come back, and then has
// everything.
var errNoReads = errors.New("spool: nothing can be read")

// errTwice is a block that is in two segments: a recovery was about to take it
// from one that is damaged to another.
var errTwice = errors.New("spool: a block has two frames")

var errChanging = errors.New("spool: its files read differently each time")

// Recover reads what earlier runs have left in the directory. It is called
// until it returns nil; everything but Append may go on meanwhile. Then all
// that it has found is on disk for certain. It can be cut off anywhere, also
// by a crash, and be made again. Nothing is inflated.
func (j *Journal) Recover(ctx context.Context) (*Recovered, error) {
	noted := uint64(0)
	if j.set.LastID != nil {
		var err error
		if noted, err = readNote(j.set.Dir); err != nil {
			return nil, err
		}
	}
	if len(j.old) == 0 {
		j.found.Store(noted)
		return &Recovered{LastID: noted}, nil
	}
	j.tries++
	each := false
	for range patience {
		r := &recovery{
			j: j, old: j.old, blind: j.tries > patience, each: each, found: Recovered{LastID: noted},
			segments: map[segmentID]*oldSegment{}, blocks: map[blockID]*oldBlock{}, parts: map[blockID]*oldPartition{},
			names: names{}, doubts: map[uint64]int64{},
			needSegments: map[segmentID][]share{}, needBlocks: map[blockID][]share{},
		}
		err := r.run(ctx)
		if errors.Is(err, errTwice) {
			each = true
			continue
		}
		if err != nil {
			return nil, err
		}
		if !r.changed.Load() {
			r.collect()
			found := r.found // alone: what else is remembered goes
			j.turn.Lock()
			j.cleaner.start(found.Tails)
			j.turn.Unlock()
			j.nudge()
			return &found, nil
		}
	}
	return nil, errChanging
}

func (r *recovery) run(ctx context.Context) error {
	said := map[uint64]int64{} // each file repeats what others have said
	for _, f := range r.old {
		f.needs, f.live, f.superseded = 0, 0, nil // an earlier try has counted
		doubts, _, err := r.j.files.readDoubts(f, r.blind)
		if err != nil {
			return err
		}
		for _, d := range doubts {
			said[d.file] = max(said[d.file], d.durable)
		}
	}
	r.j.turn.Lock()
	if r.j.files.inherit(said) {
		r.j.files.end() // the next one says so
	}
	for _, d := range r.j.files.doubts { // also what an earlier try has read, and what is gone since
		r.doubts[d.file] = d.durable
	}
	r.j.turn.Unlock()
	for _, f := range r.old {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.scan(f); err != nil {
			return err
		}
	}
	if err := r.rescan(); err != nil {
		return err
	}
	if err := r.preserve(); err != nil {
		return err
	}
	if err := r.sync(); err != nil {
		return err
	}
	r.handOver()
	return r.rewrite(ctx)
}

// rescan takes into account what an earlier try has written again: some of it
// may not be there any more where it was.
func (r *recovery) rescan() error {
	r.again = true
	var w *window
	for _, at := range r.j.moved {
		if w == nil || w.f != at.file {
			w = r.j.files.window(at.file, 0, false)
		}
		w.size = at.offset + at.size
		rec, err := w.record(at.offset)
		if errors.Is(err, fs.ErrNotExist) {
			continue // nobody needed it any more
		}
		if err == nil {
			err = r.apply(rec)
		}
		if err != nil {
			return fmt.Errorf("read what was written again: %w", err)
		}
	}
	return nil
}

// sync brings the files that were read, and their names, to the disk: what
// follows must not rest on what a power cut could take back.
func (r *recovery) sync() error {
	for _, f := range r.old {
		h, err := r.j.files.acquire(f)
		if r.blind && err != nil && isLost(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = h.file.Sync()
		r.j.files.release(h)
		if err != nil {
			return err
		}
	}
	return r.j.set.Dir.Sync()
}

// handOver gives away the sealed segments that are certain to be on disk. Each of
// their records is in the part of a file that was fsynced before a crash, and the
// file was fsynced again, so nothing of them has to be written first. A segment
// with any record in doubt waits until that is written again.
func (r *recovery) handOver() {
	if r.j.set.Early == nil || len(r.holes) > 0 || r.blind {
		return
	}
	doubted := map[segmentID]bool{}
	for i := range r.doubtful {
		doubted[r.doubtful[i].segment] = true
	}
	var certain []*Segment
	for id, s := range r.segments {
		if s.delivered || s.seal == nil || doubted[id] || r.j.early[id] {
			continue
		}
		if s.join(); s.whole() && !slices.ContainsFunc(s.frames, s.moving) {
			r.j.early[id] = true
			certain = append(certain, s.seg)
		}
	}
	// The next try may not see the group any more that says how much is certain. It
	// must not write these segments again, and so let the file go that has them.
	r.j.turn.Lock()
	r.remember()
	r.j.turn.Unlock()
	slices.SortFunc(certain, compareOpened)
	r.j.set.Early(certain)
}

func compareOpened(a, b *Segment) int {
	return cmp.Or(a.Opened.Compare(b.Opened), cmp.Compare(a.Sequence, b.Sequence))
}

// maxRewrite is how many bytes of records are written again at once. Who commits
// meanwhile waits for as much.
const maxRewrite int64 = 1 << 20

// rewriteEach is what a record costs besides its bytes, in such bytes.
const rewriteEach = 1 << 10

// rewrite brings records that may not be on disk into a file of this run, as
// they are, and then takes the old files over. That a sync returns nil proves
// nothing for what an earlier one has failed to write.
func (r *recovery) rewrite(ctx context.Context) error {
	most, queued := cmp.Or(r.j.set.Rewrite, maxRewrite), int64(0)
	for _, d := range r.doubtful {
		if !r.counts(d) {
			continue
		}
		cost := d.body.size + rewriteEach
		if queued += cost; queued > most {
			queued = cost
			if err := r.commit(ctx, func() {}); err != nil || r.changed.Load() {
				return err
			}
		}
		r.repeat(d)
	}
	r.j.found.Store(r.found.LastID) // the group says it, before a file that does can go
	if err := r.commit(ctx, r.adopt); err != nil {
		return err
	}
	if !r.changed.Load() { // the next file says what is certain of the old ones
		r.j.enqueue(entry{drains: true, write: func(*writer) error { return nil }})
		r.j.nudge()
	}
	return nil
}

// repeat writes a record into a file of this run, and releases the file that it
// was in.
func (r *recovery) repeat(d doubtful) {
	if d.kind == recordStage {
		release(r.needBlocks, d.block, d.body.file, d.body.size+recordHeadSize)
	} else {
		release(r.needSegments, d.segment, d.body.file, d.body.size+recordHeadSize)
	}
	whole := false
	r.j.enqueue(entry{
		bytes: d.body.size, drains: true,
		write: func(w *writer) error {
			if whole = !r.changed.Load() && r.copy(w, d); !whole {
				r.changed.Store(true)
			}
			return nil
		},
		wrote: func(at extent) {
			if whole {
				r.moved(d, at)
			}
		},
	})
}

// commit waits until what is written again is on disk, and then has the journal
// do something, unless it does not read as it did.
func (r *recovery) commit(ctx context.Context, then func()) error {
	done := make(chan struct{})
	r.j.enqueue(entry{
		drains: true,
		write:  func(*writer) error { return nil },
		then: func() {
			if !r.changed.Load() {
				then()
			}
			close(done)
		},
	})
	r.j.nudge()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// adopt takes the old files over, and who needs them. They are counted already.
func (r *recovery) adopt() {
	files := r.j.files
	files.all, files.adopted = slices.Concat(r.old, files.all), true
	for _, id := range files.ended {
		done(r.needSegments, id)
	}
	files.ended = nil
	files.segments = united(files.segments, r.needSegments)
	files.blocks = united(files.blocks, r.needBlocks)
	for _, f := range r.old {
		r.j.cleaner.earn(f.size)
	}
	r.settle()
}

// united returns the owners of both, as those of whom there are more: of earlier
// runs there may be very many, and Track may wait for this.
func united[K comparable](a, b map[K][]share) map[K][]share {
	if len(a) < len(b) {
		a, b = b, a
	}
	for id, files := range b {
		a[id] = append(a[id], files...)
	}
	return a
}

// settle has the next file say what is certain now.
func (r *recovery) settle() {
	r.remember()
	r.j.files.end() // the next one says so
}

// remember notes how much of the old files is certain to be on disk. The caller
// has the turn.
func (r *recovery) remember() {
	files := r.j.files
	durable := map[uint64]int64{}
	for _, f := range r.old {
		durable[f.number] = f.durable
	}
	for i := range files.doubts {
		d := &files.doubts[i]
		d.durable = max(d.durable, durable[d.file]) // of another version nothing was read
	}
}

// counts reports whether a record still means something: lines that are in no
// frame, a segment that is not delivered, or that it is. One that was found again
// in a later place does not.
func (r *recovery) counts(d doubtful) bool {
	var last extent
	switch d.kind {
	case recordStage:
		if b := r.blocks[d.block]; b != nil {
			last = b.pieces[d.index].at
		}
	case recordFrame:
		if s := r.segments[d.segment]; !s.delivered {
			last, _ = s.at(d.index)
		}
	case recordSeal:
		if s := r.segments[d.segment]; !s.delivered {
			last = s.sealAt
		}
	default:
		return true
	}
	return last.file == d.body.file && last.end() == d.body.end()
}

// copy writes a record again, unless it is not any more what it was: the kernel
// drops a page that it could not write when it likes, and what is read then is
// older. Then it is as if the record and those behind it had not been there, and
// nothing may count on them.
func (r *recovery) copy(w *writer, d doubtful) (whole bool) {
	w.begin(d.kind)
	at := len(w.buf)
	w.buf = append(w.buf, make([]byte, d.body.size)...)
	_, err := r.j.files.readAt(d.body.file, w.buf[at:], d.body.offset)
	if err != nil || crc32.Update(d.body.file.salt, castagnoli, w.buf[at:]) != d.crc {
		w.buf = w.buf[:w.head]
		return false
	}
	w.end()
	return true
}

// moved notes where a record is now.
func (r *recovery) moved(d doubtful, at extent) {
	r.j.moved = append(r.j.moved, at)
	switch d.kind {
	case recordStage:
		r.blocks[d.block].pieces[d.index].at = at.last(d.payload)
		need(r.j.files.blocks, d.block, at.share())
	case recordFrame:
		r.segments[d.segment].move(d.index, at.last(d.payload))
		need(r.j.files.segments, d.segment, at.share())
	case recordSeal:
		need(r.j.files.segments, d.segment, at.share())
	}
}

// collect makes of the parts what is to be delivered.
func (r *recovery) collect() {
	tails := map[blockID]*Tail{}
	tail := func(id blockID, source string, day time.Time) *Tail {
		id.block = 0
		if tails[id] == nil {
			tails[id] = &Tail{Source: source, Day: day}
		}
		return tails[id]
	}
	for _, id := range slices.SortedFunc(maps.Keys(r.segments), compareSegments) {
		s := r.segments[id]
		if s.delivered || r.j.early[id] {
			continue
		}
		s.join()
		switch {
		case slices.ContainsFunc(s.frames, s.moving):
			r.salvage(s, tail)
		case s.seal == nil && s.seg.Events > 0 && r.open(s) && tail(s.partition.id, s.seg.Source, s.seg.Day).Segment == nil:
			tail(s.partition.id, s.seg.Source, s.seg.Day).Segment = s.seg
		case s.seal != nil && s.whole():
			r.found.Sealed = append(r.found.Sealed, s.seg)
		default:
			r.salvage(s, tail)
		}
	}
	for id, b := range r.blocks {
		rest := b.leftover(id, r.j.files)
		if rest == nil {
			r.j.forget(id)
			continue
		}
		t := tail(id, b.stage.source, b.stage.day)
		t.Blocks = append(t.Blocks, *rest)
	}
	// Runs in their order, and the partitions of one run in theirs: so a source's
	// events stay in order.
	order := slices.SortedFunc(maps.Keys(tails), func(a, b blockID) int {
		return cmp.Or(cmp.Compare(a.run, b.run), cmp.Compare(a.partition, b.partition))
	})
	for _, id := range order {
		t := tails[id]
		slices.SortFunc(t.Blocks, func(a, b Leftover) int { return cmp.Compare(a.Block, b.Block) })
		t.Ahead = r.ahead(t)
		r.found.Tails = append(r.found.Tails, *t)
	}
	slices.SortFunc(r.found.Sealed, compareOpened)
}
