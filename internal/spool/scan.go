package spool

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"regexp"
	"slices"
	"strconv"

	"github.com/s3sink/s3sink/internal/vfs"
)

var journalName = regexp.MustCompile(`^([0-9a-f]{16})-([0-9a-f]{8})\.journal$`)

// IsFileName reports whether a journal file may have this name.
func IsFileName(name string) bool { return journalName.MatchString(name) }

// listFiles returns the journal files of a directory, oldest first. Whatever
// else is in it is not ours to touch.
func listFiles(dir vfs.Dir) ([]*file, error) {
	entries, err := dir.List()
	if err != nil {
		return nil, err
	}
	var all []*file
	for _, e := range entries {
		m := journalName.FindStringSubmatch(e.Name)
		if m == nil || e.Type != 0 {
			continue
		}
		number, err := strconv.ParseUint(m[1], 16, 64)
		if err != nil {
			continue
		}
		all = append(all, &file{name: e.Name, number: number, size: e.Size})
	}
	slices.SortFunc(all, func(a, b *file) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}

// readHeader reads what a file begins with. A file that has no whole header
// holds nothing, unless damage took it.
func (fs *files) readHeader(f *file, w *window) error {
	b, err := w.from(0, fileHeaderSize)
	if err != nil {
		return err
	}
	h, err := decodeFileHeader(b)
	if err == nil && h.number != f.number {
		err = errBad // somebody has renamed it
	}
	f.salt = h.salt
	if errors.Is(err, errBad) {
		f.salt = saltOf(f.name)
	}
	return err
}

// saltOf returns the salt of a file whose header is lost.
func saltOf(name string) uint32 {
	random, _ := hex.DecodeString(journalName.FindStringSubmatch(name)[2])
	return binary.LittleEndian.Uint32(random)
}

// readDoubts reads what a file says of earlier ones, and reports whether that
// is all that it had to say: a group follows.
func (fs *files) readDoubts(f *file, blind bool) (doubts []doubtRecord, whole bool, err error) {
	w := fs.window(f, f.size, blind)
	err = fs.readHeader(f, w)
	if errors.As(err, new(errVersion)) || errors.Is(err, errBad) {
		return nil, false, nil // scan says so
	}
	if err != nil {
		return nil, false, err
	}
	_, err = w.records(fileHeaderSize, func(rec record) error {
		if rec.kind != recordDoubt {
			whole = rec.kind == recordGroup
			return errBad // they come first
		}
		d, err := decodeDoubt(rec.prefix)
		doubts = append(doubts, d)
		return err
	})
	return doubts, whole, err
}

// suspect doubts the files that may not be on disk as they can be read: the last
// one, and the one before a file that could have said so but is torn. What they
// say of others may be gone with them, so the next file says it too.
func (fs *files) suspect(old []*file) error {
	for i := len(old) - 1; i >= 0; i-- {
		doubts, whole, err := fs.readDoubts(old[i], true)
		if err != nil && !errors.Is(err, errNoReads) { // what cannot be read is suspect
			return err
		}
		said := map[uint64]int64{old[i].number: 0}
		for _, d := range doubts {
			said[d.file] = max(said[d.file], d.durable)
		}
		fs.inherit(said)
		if whole {
			break
		}
	}
	return nil
}

// inherit has the next file say what earlier ones have said, by the numbers of
// files. It reports whether that is news.
func (fs *files) inherit(said map[uint64]int64) (news bool) {
	known := map[uint64]int{}
	for i, d := range fs.doubts {
		known[d.file] = i
	}
	for _, f := range fs.old {
		durable, ok := said[f.number]
		if !ok {
			continue
		}
		if i, ok := known[f.number]; !ok {
			fs.doubts = append(fs.doubts, doubtRecord{f.number, durable})
		} else if fs.doubts[i].durable < durable {
			fs.doubts[i].durable = durable
		} else {
			continue
		}
		news = true
	}
	return news
}

// scan reads one file. Only what a commit is known to have covered is certain to
// be on disk: a later file says how much that is, or the file's own groups. There a
// bad record is damage, and what is behind it counts; elsewhere it is where a
// crash came, and nothing behind it counts.
func (r *recovery) scan(f *file) error {
	w := r.j.files.window(f, f.size, r.blind)
	headless := false
	switch err := r.j.files.readHeader(f, w); {
	case errors.As(err, new(errVersion)):
		r.found.Foreign = append(r.found.Foreign, f.name)
		f.needs++ // for ever
		return nil
	case errors.Is(err, errBad):
		headless = true
	case err != nil:
		return err
	}
	certain, open := r.doubts[f.number] // its own groups say what is certain, too
	if !open {
		certain = f.size
	}
	r.certain = certain
	before := len(r.doubtful)
	visit := func(rec record) error {
		if rec.kind == recordGroup && open {
			durable, err := decodeGroup(rec.prefix)
			certain = max(certain, durable)
			r.covered(before, certain)
			return err
		}
		return r.apply(rec)
	}
	var err error
	end, next := int64(0), int64(fileHeaderSize)
	for first := true; ; first = false {
		if !first || !headless {
			end, err = w.records(next, visit)
		}
		if err == nil && first && open {
			var behind int64
			behind, err = w.durable(end)
			certain = max(certain, behind)
		}
		if err != nil {
			return err
		}
		if end >= min(certain, f.size) {
			break
		}
		if next, err = w.next(end + 1); err != nil {
			return err
		}
		r.hole(f, end, min(next, certain))
		if end = min(next, certain); next > certain {
			break
		}
	}
	if end < certain { // it was cut off
		r.hole(f, end, end)
	}
	f.durable = certain
	r.covered(before, certain)
	used, err := w.used(min(end, f.size))
	r.found.Torn += max(0, used-end)
	if w.unread {
		r.damaged(f)
	}
	return err
}

// covered notes how much of the file that is scanned is on disk. Records of it
// begin in doubtful at before.
func (r *recovery) covered(before int, certain int64) {
	r.certain = certain
	rest := slices.DeleteFunc(r.doubtful[before:], func(d doubtful) bool { return d.body.offset+d.body.size <= certain })
	r.doubtful = r.doubtful[:before+len(rest)]
}

// apply takes one record into account. Records that are there twice are known
// by what they are.
func (r *recovery) apply(rec record) error {
	switch rec.kind {
	case recordStage:
		return r.stage(rec)
	case recordFrame:
		return r.frame(rec)
	case recordSeal:
		s, err := decodeSeal(rec.prefix, r.names)
		if err == nil {
			old := r.segment(s.segmentID)
			if !old.forgotten() {
				if old.seal != nil {
					supersede(r.needSegments, s.segmentID, old.sealAt)
				}
				old.seal, old.sealAt = &s, rec.body
				r.fold(old)
			}
			if !old.delivered {
				r.need(rec, s.segmentID)
			}
			r.doubt(rec, doubtful{segment: s.segmentID})
		}
		return err
	case recordDelivered:
		d, err := decodeDelivered(rec.prefix, r.names)
		if err == nil {
			old := r.segment(d.segmentID)
			if old.delivered = true; !r.each {
				old.forget()
			}
			done(r.needSegments, d.segmentID)
			r.doubt(rec, doubtful{segment: d.segmentID})
		}
		return err
	case recordLastID:
		id, err := decodeLastID(rec.prefix)
		if err == nil {
			rec.body.file.lastID = max(rec.body.file.lastID, id)
			r.found.LastID = max(r.found.LastID, id)
		}
		return err
	case recordGroup, recordDoubt:
		return nil
	}
	return nil // of a later version that can be read by this one
}

func (r *recovery) segment(id segmentID) *oldSegment {
	s := r.segments[id]
	if s == nil {
		s = &oldSegment{seg: NewSegment(Header{RunID: id.run, Sequence: id.sequence})}
		r.segments[id] = s
	}
	return s
}

// partition returns the partition of a block.
func (r *recovery) partition(id blockID) *oldPartition {
	id.block = 0
	p := r.parts[id]
	if p == nil {
		p = &oldPartition{id: id}
		r.parts[id] = p
	}
	return p
}

// fold forgets what the frames of a whole segment are, unless somebody may ask.
func (r *recovery) fold(s *oldSegment) {
	if !r.each {
		s.fold()
	}
}

// need notes that a file holds a record of a segment; of a file of this run that
// is known.
func (r *recovery) need(rec record, id segmentID) {
	if !r.again {
		need(r.needSegments, id, rec.share())
	}
}

// supersede releases a record, of which at is the end, because it was found again
// in a later place: a cleaner or a recovery has copied it, and perhaps was cut off.
// It is not copied another time.
func supersede[K comparable](owners map[K][]share, id K, at extent) {
	f := at.file
	if !release(owners, id, f, at.size) {
		return // it is in a file of this run
	}
	if f.superseded == nil {
		f.superseded = map[int64]struct{}{}
	}
	f.superseded[at.end()] = struct{}{}
}

// doubt notes that a record may not be on disk. What an earlier try has written
// again is.
func (r *recovery) doubt(rec record, d doubtful) {
	if r.again || rec.end() <= r.certain {
		return
	}
	d.kind, d.body, d.crc = rec.kind, rec.body, rec.bodyCRC
	r.doubtful = append(r.doubtful, d)
}

func (r *recovery) stage(rec record) error {
	s, size, err := decodeStage(rec.prefix, rec.length, r.names)
	if err != nil {
		return err
	}
	p := r.partition(s.blockID)
	p.is(s.source, s.day)
	if p.in(s.block) != nil {
		return nil
	}
	b := r.blocks[s.blockID]
	if b == nil {
		b = &oldBlock{stage: s, last: s.last}
		r.blocks[s.blockID] = b
	}
	if s.first.Before(b.stage.first) {
		b.stage.first = s.first
	}
	if s.last.After(b.last) {
		b.last = s.last
	}
	index := b.find(s.offset, size)
	if index < len(b.pieces) {
		supersede(r.needBlocks, s.blockID, b.pieces[index].at)
		b.pieces[index].at = rec.body.last(size)
	} else {
		b.pieces = append(b.pieces, piece{at: rec.body.last(size), offset: s.offset})
	}
	if !r.again {
		need(r.needBlocks, s.blockID, rec.share())
	}
	r.doubt(rec, doubtful{block: s.blockID, index: uint64(index), payload: size})
	return nil
}

// find returns the index of the piece at an offset, or of the next one to add.
// Mostly the pieces come in order.
func (b *oldBlock) find(offset, size int64) int {
	next := len(b.pieces)
	if next == 0 || b.pieces[next-1].offset < offset {
		return next
	}
	i := slices.IndexFunc(b.pieces, func(p piece) bool { return p.offset == offset && p.at.size == size })
	if i < 0 {
		return next
	}
	return i
}

func (r *recovery) frame(rec record) error {
	f, size, err := decodeFrame(rec.prefix, rec.length, r.names)
	if err != nil {
		return err
	}
	delete(r.blocks, f.block)
	done(r.needBlocks, f.block)

	p, s := r.partition(f.block), r.segment(f.segmentID)
	if f.header != nil {
		p.is(f.header.Source, f.header.Day)
	}
	if !s.has(f.index) {
		if in := p.in(f.block.block); in != nil && in != s && !r.each {
			return errTwice
		}
		p.put(f.block.block, s)
	}
	if f.header != nil && !s.forgotten() {
		s.seg.Header = *f.header
		s.partition = p
	}
	if !s.forgotten() {
		if before, ok := s.at(f.index); ok {
			supersede(r.needSegments, f.segmentID, before)
		}
		s.put(packed(&f, rec.body.last(size), p))
		r.fold(s)
	}
	if !s.delivered {
		r.need(rec, f.segmentID)
	}
	r.doubt(rec, doubtful{segment: f.segmentID, index: f.index, payload: size})
	return nil
}
