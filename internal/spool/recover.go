package spool

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// Recovered is what earlier runs have left.
type Recovered struct {
	Sealed []*Segment // complete, oldest first
	Tails  []Tail     // what was not complete, oldest first

	Torn        int64    // bytes at the ends of files that no commit had covered
	Damaged     []string // files that do not hold what had been brought to the disk
	Quarantined int64    // events of sealed segments that were damaged so
	Foreign     []string // files of another version, left as they are
}

// Tail is what is left of a partition of an earlier run: perhaps a segment that
// is not sealed, and perhaps blocks behind it that have no frames.
type Tail struct {
	Segment *Segment // or nil
	Source  string
	Day     time.Time
	Blocks  []Leftover
}

// recovery is what one scan of all files finds.
type recovery struct {
	j        *Journal
	old      []*file
	found    Recovered
	segments map[segmentID]*oldSegment
	blocks   map[blockID]*oldBlock
	doubts   map[uint64]int64 // what is certain of a file whose sync failed
	suspect  map[uint64]bool  // files of which nobody knows
	doubtful []doubtful       // in order

	needSegments map[segmentID][]*file
	needBlocks   map[blockID][]*file
}

type oldSegment struct {
	seg       *Segment
	partition blockID // less the block
	seal      *sealRecord
	frames    map[uint64]oldFrame
	delivered bool
}

type oldFrame struct {
	frame Frame // less its payload
	at    extent
}

type oldBlock struct {
	stage  stageRecord // the first that was found
	last   time.Time
	pieces []piece
	framed bool
}

// doubtful is a record that can be read, but may not be on disk.
type doubtful struct {
	kind    recordType
	body    extent
	segment segmentID
	block   blockID
	index   uint64 // of a frame in its segment, or of a stage's piece in its block
	payload int64  // bytes at the end of the body
}

// Recover reads what earlier runs have left in the directory. It is called
// once; everything but Append may go on meanwhile. When it returns nil, all
// that it has found is on disk for certain. It can be cut off anywhere, also
// by a crash, and be made again. Nothing is inflated.
func (j *Journal) Recover(ctx context.Context) (*Recovered, error) {
	r := &recovery{
		j: j, old: j.old,
		suspect:  map[uint64]bool{},
		segments: map[segmentID]*oldSegment{}, blocks: map[blockID]*oldBlock{}, doubts: map[uint64]int64{},
		needSegments: map[segmentID][]*file{}, needBlocks: map[blockID][]*file{},
	}
	for _, d := range j.suspects {
		r.suspect[d.file] = true
	}
	for _, f := range r.old {
		f.needs = 0 // an earlier try has counted
	}
	for _, f := range r.old {
		doubts, _, err := j.files.readDoubts(f)
		if err != nil {
			return nil, err
		}
		for _, d := range doubts {
			r.doubts[d.file] = d.durable
		}
	}
	for _, f := range r.old {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := r.scan(f); err != nil {
			return nil, err
		}
	}
	if err := r.sync(); err != nil {
		return nil, err
	}
	if err := r.rewrite(ctx); err != nil {
		return nil, err
	}
	r.collect()
	return &r.found, nil
}

// sync brings the files that were read, and their names, to the disk: what
// follows must not rest on what a power cut could take back.
func (r *recovery) sync() error {
	for _, f := range r.old {
		h, err := r.j.files.acquire(f)
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

// rewrite brings records that may not be on disk into a file of this run, as
// they are, and then takes the old files over. That a sync returns nil proves
// nothing for what an earlier one has failed to write.
func (r *recovery) rewrite(ctx context.Context) error {
	for _, d := range r.doubtful {
		if !r.counts(d) {
			continue
		}
		r.j.enqueue(entry{
			bytes: d.body.size,
			write: func(w *writer) error { return r.copy(w, d.kind, d.body) },
			wrote: func(to *file, end int64) { r.moved(d, to, end) },
		})
	}
	files := r.j.files
	done := make(chan struct{})
	r.j.enqueue(entry{
		write: func(*writer) error { return nil },
		then: func() {
			files.all, files.adopted = append(r.old, files.all...), true
			adopt(files.segments, r.needSegments)
			adopt(files.blocks, r.needBlocks)
			r.settle()
			close(done)
		},
	})
	r.j.nudge()
	select {
	case <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if len(r.old) > 0 { // the next file says what is certain of the old ones
		r.j.enqueue(entry{write: func(*writer) error { return nil }})
		r.j.nudge()
	}
	return nil
}

// settle notes what is certain now. A file of which nothing was certain is not
// needed any more, because all that counts in it was written again.
func (r *recovery) settle() {
	files := r.j.files
	for _, f := range r.old {
		if f.durable <= fileHeaderSize && f.needs > 0 && !slices.Contains(r.found.Foreign, f.name) {
			leave(files.segments, f)
			leave(files.blocks, f)
			f.needs = 0
		}
	}
	for i := range files.doubts {
		for _, f := range r.old {
			if d := &files.doubts[i]; d.file == f.number {
				d.durable = f.durable
			}
		}
	}
	files.end() // the next one says so
}

func leave[K comparable](owners map[K][]*file, f *file) {
	for id, held := range owners {
		owners[id] = slices.DeleteFunc(held, func(g *file) bool { return g == f })
	}
}

// counts reports whether a record still means something: lines that are in no
// frame, a segment that is not delivered, or that it is.
func (r *recovery) counts(d doubtful) bool {
	switch d.kind {
	case recordStage:
		return !r.blocks[d.block].framed
	case recordFrame, recordSeal:
		return !r.segments[d.segment].delivered
	}
	return true
}

// adopt takes over who needs which file. They are counted already.
func adopt[K comparable](owners, old map[K][]*file) {
	for id, files := range old {
		owners[id] = append(owners[id], files...)
	}
}

func (r *recovery) copy(w *writer, kind recordType, body extent) error {
	w.begin(kind)
	at := len(w.buf)
	w.buf = append(w.buf, make([]byte, body.size)...)
	if _, err := r.j.files.readAt(body.file, w.buf[at:], body.offset); err != nil {
		return err
	}
	w.end()
	return nil
}

// moved notes where a record is now.
func (r *recovery) moved(d doubtful, to *file, end int64) {
	now := extent{to, end - d.payload, d.payload}
	switch d.kind {
	case recordStage:
		r.blocks[d.block].pieces[d.index].at = now
		need(r.j.files.blocks, d.block, to)
	case recordFrame:
		s := r.segments[d.segment]
		s.frames[d.index] = oldFrame{s.frames[d.index].frame, now}
		need(r.j.files.segments, d.segment, to)
	case recordSeal:
		need(r.j.files.segments, d.segment, to)
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
	for _, s := range r.segments {
		s.join()
		switch {
		case s.delivered:
		case s.seal == nil && s.seg.Events > 0:
			tail(s.partition, s.seg.Source, s.seg.Day).Segment = s.seg
		case s.seal != nil && s.whole():
			r.found.Sealed = append(r.found.Sealed, s.seg)
		case s.seal != nil:
			r.found.Quarantined += s.seal.events
			r.j.Remove(s.seg)
		}
	}
	for id, b := range r.blocks {
		if b.framed {
			continue
		}
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
		r.found.Tails = append(r.found.Tails, *t)
	}
	slices.SortFunc(r.found.Sealed, func(a, b *Segment) int {
		return cmp.Or(a.Opened.Compare(b.Opened), cmp.Compare(a.Sequence, b.Sequence))
	})
}

// join puts the frames into the segment, up to the first that is missing.
func (s *oldSegment) join() {
	for {
		f, ok := s.frames[s.seg.frames]
		if !ok {
			return
		}
		s.seg.addSize(&f.frame, f.at.size)
		s.seg.disk = append(s.seg.disk, f.at)
		s.seg.frames++
	}
}

// whole completes the segment, and reports whether it is what was sealed.
func (s *oldSegment) whole() bool {
	if s.seg.frames != s.seal.frames || s.seg.Events != s.seal.events {
		return false
	}
	s.seg.seal()
	return s.seg.Size() == s.seal.size && s.seg.CRC32() == s.seal.crc
}

var errHole = errors.New("spool: a block has a hole")

// Leftover is a block of an earlier run without a frame.
type Leftover struct {
	Run              string
	Partition, Block uint64
	First, Last      time.Time // received

	files  *files
	pieces []piece // from offset 0 on, without holes
}

// piece is the lines of a stage.
type piece struct {
	at     extent
	offset int64 // in the block
}

// leftover returns what there is of a block from its beginning, or nil.
func (b *oldBlock) leftover(id blockID, fs *files) *Leftover {
	slices.SortStableFunc(b.pieces, func(x, y piece) int { return cmp.Compare(x.offset, y.offset) })
	l := &Leftover{
		Run: id.run, Partition: id.partition, Block: id.block,
		First: b.stage.first, Last: b.last, files: fs,
	}
	var have int64
	for _, p := range b.pieces {
		if p.offset == have && p.at.size > 0 { // else it is a copy of what is there, or behind a hole
			l.pieces = append(l.pieces, p)
			have += p.at.size
		}
	}
	if have == 0 {
		return nil
	}
	return l
}

// Lines reads the block's lines into memory: whole ones, because a crash may
// have come within one that was too long for a record.
func (l *Leftover) Lines() ([]byte, error) {
	var lines []byte
	for _, p := range l.pieces {
		if p.offset != int64(len(lines)) {
			return nil, errHole
		}
		lines = append(lines, make([]byte, p.at.size)...)
		if _, err := l.files.readAt(p.at.file, lines[p.offset:], p.at.offset); err != nil {
			return nil, err
		}
	}
	for n := len(lines); n > 0; n-- {
		if lines[n-1] == '\n' {
			return lines[:n], nil
		}
	}
	return nil, nil
}
