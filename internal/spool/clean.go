package spool

import (
	"errors"
	"hash/crc32"
	"slices"
	"time"
)

const (
	// cleanStep is how many bytes of live records one commit copies, and one
	// record more: whoever waits for the commit waits for them too.
	cleanStep = 256 << 10

	// cleanRead is how many bytes of the oldest file one commit reads for that.
	cleanRead = 1 << 20

	// cleanCredit is how many bytes may be copied for each byte that was written
	// otherwise. It bounds the cost whatever the files hold.
	cleanCredit = 8

	// cleanAgain is the wait after a copy has failed.
	cleanAgain = 10 * time.Second
)

// cleaner copies the live records of the oldest file to the current one, so that
// the oldest file can be removed although a segment in it stays, perhaps because
// its object is refused. Otherwise that file would keep all later ones, too.
//
// A copy has the identity and the bytes of its record, so recovery takes either of
// them, or both for one. The record is released when its copy is fsynced; the file
// goes as any other file that nobody needs. So a crash at any moment leaves each
// live record in at least one file.
//
//	oldest                              current
//	+---+-------+---+-----------+       +---------------+---+---+
//	| a | dead  | b | dead      |  ...  | group         | a | b |
//	+---+-------+---+-----------+       +---------------+---+---+
//
// A delivered record stays behind all copies of what it ends, because nothing is
// copied once it is fsynced: so oldest first is still the order to remove in.
//
// The cleaner belongs to whoever has the journal's turn.
type cleaner struct {
	files  *files
	limit  int64 // bytes that the files should stay below; 0: none
	most   int64 // bytes to copy at once, and one record
	earned int64 // bytes written that are no copies
	copied int64 // bytes

	started bool        // recovery has ended
	broken  []segmentID // segments that damage has made holes into: see start

	window *window // of the oldest file, or nil
	off    int64   // in it: the records before are copied
	step   int64   // where the next commit begins, once this one has succeeded
	batch  []liveRecord
	pause  time.Time // before which nothing is tried, after an error
}

// liveRecord is a record of the oldest file that somebody needs.
type liveRecord struct {
	kind    recordType
	body    []byte
	segment segmentID
	block   blockID // of a stage
	was     extent  // the record, and where it was copied to
	now     extent
	payload int64 // bytes at the end
}

func (l *liveRecord) write(w *writer) {
	w.begin(l.kind)
	w.buf = append(w.buf, l.body...)
	w.end()
}

// pays reports whether the oldest file is to be cleaned. Dead bytes are spent on
// it: to go around all files once copies every live byte, and frees every dead
// one. With more dead bytes than live ones a copied byte frees at least one, and
// the spool stays within twice its live bytes and two files. A spool that is nearly
// full pays more, until one file of dead bytes is left.
func (c *cleaner) pays() bool {
	fs := c.files
	if !c.started || len(fs.all) == 0 || c.copied > cleanCredit*c.earned {
		return false
	}
	if slices.ContainsFunc(c.broken, func(id segmentID) bool { return len(fs.segments[id]) > 0 }) {
		return false
	}
	if f := fs.all[0]; f == fs.current || f.stuck || f.live == 0 {
		return false
	}
	size, live := fs.size(), fs.live()
	dead := size - live
	return dead > live+fs.full || c.limit > 0 && size > c.limit/4*3 && dead > fs.full
}

// start lets cleaning begin, after recovery. It waits until the blocks of broken
// segments are in new ones: if a block is in two segments, recovery takes the last
// one in the order of the files, and a copy would be behind it.
func (c *cleaner) start(tails []Tail) {
	for _, t := range tails {
		for _, b := range t.Broken {
			c.broken = append(c.broken, b.Segment.id())
		}
	}
	c.started = true
}

// earn notes that so many bytes were written that are no copies.
func (c *cleaner) earn(bytes int64) { c.earned += bytes }

// ready reports whether the next commit has copies to make: now, or later because
// of an error.
func (c *cleaner) ready() (now, later bool) {
	if !c.pays() {
		return false, false
	}
	later = time.Now().Before(c.pause)
	return !later, later
}

// next returns the live records that the next group begins with.
func (c *cleaner) next() []liveRecord {
	c.batch = nil
	if now, _ := c.ready(); !now {
		c.window = nil
		return nil
	}
	if f := c.files.all[0]; c.window == nil || c.window.f != f {
		c.window, c.off = c.files.window(f, min(f.size, f.durable), false), fileHeaderSize
	}
	if err := c.collect(); err != nil {
		c.settle(err)
		return nil
	}
	if len(c.batch) == 0 {
		c.settle(nil)
	}
	return c.batch
}

// collect reads the next live records. What is behind the bytes that are known to
// be on disk is not read: recovery has written it again.
func (c *cleaner) collect() error {
	c.step = c.off
	for copied := int64(0); c.step < c.window.size && c.step < c.off+cleanRead && copied < c.most; {
		rec, err := c.window.record(c.step)
		if errors.Is(err, errBad) { // damage, which recovery has reported
			c.step, err = c.window.next(c.step + 1)
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if l := c.examine(rec); l != nil {
			if err := c.read(l, rec); err != nil {
				return err
			}
			c.batch = append(c.batch, *l)
			copied += l.was.size
		}
		c.step = rec.end()
	}
	return nil
}

// examine returns a record that somebody needs, or nil.
func (c *cleaner) examine(rec record) *liveRecord {
	f := c.window.f
	if _, ok := f.superseded[rec.end()]; ok {
		return nil
	}
	l := &liveRecord{kind: rec.kind, was: extent{f, rec.offset, rec.end() - rec.offset}}
	switch rec.kind {
	case recordStage:
		s, size, err := decodeStage(rec.prefix, rec.length, nil)
		if l.block, l.payload = s.blockID, size; err == nil && holds(c.files.blocks, l.block, f) {
			return l
		}
	case recordFrame:
		r, size, err := decodeFrame(rec.prefix, rec.length, nil)
		if l.segment, l.payload = r.segmentID, size; err == nil && holds(c.files.segments, l.segment, f) {
			return l
		}
	case recordSeal:
		s, err := decodeSeal(rec.prefix, nil)
		if l.segment = s.segmentID; err == nil && holds(c.files.segments, l.segment, f) {
			return l
		}
	}
	return nil
}

// read fills the body in. It was whole a moment ago.
func (c *cleaner) read(l *liveRecord, rec record) error {
	l.body = make([]byte, rec.length)
	if _, err := c.files.readAt(l.was.file, l.body, rec.body.offset); err != nil {
		return err
	}
	if crc32.Update(l.was.file.salt, castagnoli, l.body) != rec.bodyCRC {
		return ErrDamaged
	}
	return nil
}

// settle notes that the copies are on disk, or why they are not.
func (c *cleaner) settle(err error) {
	if err != nil {
		c.pause, c.window = time.Now().Add(cleanAgain), nil
		return
	}
	fs := c.files
	for i := range c.batch {
		l := &c.batch[i]
		c.copied += l.was.size
		if l.kind == recordStage {
			release(fs.blocks, l.block, l.was.file, l.was.size)
			need(fs.blocks, l.block, l.now.share())
		} else {
			release(fs.segments, l.segment, l.was.file, l.was.size)
			need(fs.segments, l.segment, l.now.share())
		}
		if l.payload > 0 {
			fs.redirect(l.was.last(l.payload), l.now.last(l.payload))
		}
	}
	c.batch, c.off = nil, c.step
	if c.off >= c.window.size {
		c.window.f.stuck = c.window.f.live > 0 // it has records that could not be read
		c.window = nil
	}
}
