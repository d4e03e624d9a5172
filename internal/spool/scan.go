package spool

import (
	"bufio"
	"cmp"
	"errors"
	"hash/crc32"
	"io"
	"regexp"
	"slices"
	"strconv"

	"github.com/s3sink/s3sink/internal/vfs"
)

var journalName = regexp.MustCompile(`^([0-9a-f]{16})-[0-9a-f]{8}\.journal$`)

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

// maxPrefix is more than any body has before its lines or its payload: keys,
// names and types are bounded.
const maxPrefix = 16 << 10

// record is one record as a scan sees it.
type record struct {
	recordHead
	offset int64  // of its head
	prefix []byte // of the body
	body   extent
}

// records calls visit for each record of f, up to the first that is not whole,
// and returns where that is. It reads in order and keeps little.
func (fs *files) records(f *file, from int64, visit func(record) error) (int64, error) {
	in := bufio.NewReaderSize(io.NewSectionReader(readerAt{fs, f}, from, f.size-from), 256<<10)
	prefix := make([]byte, maxPrefix)
	head := make([]byte, recordHeadSize)
	for off := from; ; {
		if _, err := io.ReadFull(in, head); err != nil {
			return off, notWhole(err)
		}
		h, err := decodeRecordHead(head, f.salt)
		if err != nil || h.length > f.size-off-recordHeadSize {
			return off, nil
		}
		r := record{recordHead: h, offset: off, prefix: prefix[:min(h.length, maxPrefix)], body: extent{f, off + recordHeadSize, h.length}}
		if _, err := io.ReadFull(in, r.prefix); err != nil {
			return off, notWhole(err)
		}
		sum := &checksum{crc32.Update(f.salt, castagnoli, r.prefix)}
		if _, err := io.CopyN(sum, in, h.length-int64(len(r.prefix))); err != nil {
			return off, notWhole(err)
		}
		if sum.crc != h.bodyCRC {
			return off, nil
		}
		if err := visit(r); errors.Is(err, errBad) {
			return off, nil
		} else if err != nil {
			return off, err
		}
		off += recordHeadSize + h.length
	}
}

// notWhole is nil for the end of a file, where a record may break off.
func notWhole(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

type checksum struct{ crc uint32 }

func (c *checksum) Write(p []byte) (int, error) {
	c.crc = crc32.Update(c.crc, castagnoli, p)
	return len(p), nil
}

type readerAt struct {
	fs *files
	f  *file
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.fs.readAt(r.f, p, off) }

// readHeader reads what a file begins with. A file that has no whole header
// holds nothing.
func (fs *files) readHeader(f *file) error {
	b := make([]byte, fileHeaderSize)
	n, err := fs.readAt(f, b, 0)
	if err := notWhole(err); err != nil {
		return err
	}
	h, err := decodeFileHeader(b[:n])
	if err == nil && h.number != f.number {
		return errBad // somebody has renamed it
	}
	f.salt = h.salt
	return err
}

// readDoubts reads what a file says of earlier ones, and reports whether that
// is all that it had to say: a group follows.
func (fs *files) readDoubts(f *file) (doubts []doubtRecord, whole bool, err error) {
	err = fs.readHeader(f)
	if errors.As(err, new(errVersion)) || errors.Is(err, errBad) {
		return nil, false, nil // scan says so
	}
	if err != nil {
		return nil, false, err
	}
	_, err = fs.records(f, fileHeaderSize, func(rec record) error {
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

// suspects returns the files that may not be on disk as they can be read: the
// last one, and the one before a file that could have said so but is torn.
func (fs *files) suspects(old []*file) ([]doubtRecord, error) {
	var all []doubtRecord
	for i := len(old) - 1; i >= 0; i-- {
		all = append(all, doubtRecord{file: old[i].number})
		_, whole, err := fs.readDoubts(old[i])
		if err != nil {
			return nil, err
		}
		if whole {
			break
		}
	}
	return all, nil
}

// scan reads one file. In the last one, and in one whose sync has failed, only
// what a commit is known to have covered is certain to be on disk.
func (r *recovery) scan(f *file) error {
	err := r.j.files.readHeader(f)
	last := r.suspect[f.number]
	certain, inDoubt := r.doubts[f.number]
	switch {
	case errors.As(err, new(errVersion)):
		r.found.Foreign = append(r.found.Foreign, f.name)
		f.needs++ // for ever
		return nil
	case errors.Is(err, errBad) && (last || inDoubt):
		r.found.Torn += f.size
		return nil
	case errors.Is(err, errBad):
		r.damaged(f)
		return nil
	case err != nil:
		return err
	}
	end, err := r.j.files.records(f, fileHeaderSize, func(rec record) error {
		if rec.kind == recordGroup && last && !inDoubt {
			durable, err := decodeGroup(rec.prefix)
			certain = max(certain, durable)
			return err
		}
		return r.apply(rec)
	})
	if err != nil {
		return err
	}
	if !last && !inDoubt {
		certain = f.size
	}
	f.durable = certain
	r.doubtful = slices.DeleteFunc(r.doubtful, func(d doubtful) bool { return d.body.file == f && d.body.offset+d.body.size <= certain })
	switch {
	case end < certain:
		r.damaged(f)
	case end < f.size:
		torn, err := r.j.files.used(f, end)
		r.found.Torn += torn
		return err
	}
	return nil
}

// used returns how long a file is from an offset on, less the zeros at its end:
// they were reserved and never needed.
func (fs *files) used(f *file, from int64) (n int64, err error) {
	in := bufio.NewReaderSize(io.NewSectionReader(readerAt{fs, f}, from, f.size-from), 256<<10)
	for i := int64(1); ; i++ {
		b, err := in.ReadByte()
		if err != nil {
			return n, notWhole(err)
		}
		if b != 0 {
			n = i
		}
	}
}

// damaged notes a file that has lost what was on the disk.
func (r *recovery) damaged(f *file) { r.found.Damaged = append(r.found.Damaged, f.name) }

// apply takes one record into account. Records that are there twice are known
// by what they are.
func (r *recovery) apply(rec record) error {
	switch rec.kind {
	case recordStage:
		return r.stage(rec)
	case recordFrame:
		return r.frame(rec)
	case recordSeal:
		s, err := decodeSeal(rec.prefix)
		if err == nil {
			old := r.segment(s.segmentID)
			old.seal = &s
			if !old.delivered {
				need(r.needSegments, s.segmentID, rec.body.file)
			}
			r.doubtful = append(r.doubtful, doubtful{kind: rec.kind, body: rec.body, segment: s.segmentID})
		}
		return err
	case recordDelivered:
		d, err := decodeDelivered(rec.prefix)
		if err == nil {
			r.segment(d.segmentID).delivered = true
			done(r.needSegments, d.segmentID)
			r.doubtful = append(r.doubtful, doubtful{kind: rec.kind, body: rec.body, segment: d.segmentID})
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
		s = &oldSegment{seg: NewSegment(Header{RunID: id.run, Sequence: id.sequence}), frames: map[uint64]oldFrame{}}
		r.segments[id] = s
	}
	return s
}

func (r *recovery) stage(rec record) error {
	s, size, err := decodeStage(rec.prefix, rec.length)
	if err != nil {
		return err
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
	b.pieces = append(b.pieces, piece{at: extent{rec.body.file, rec.body.offset + rec.length - size, size}, offset: s.offset})
	if !b.framed {
		need(r.needBlocks, s.blockID, rec.body.file)
	}
	r.doubtful = append(r.doubtful, doubtful{kind: rec.kind, body: rec.body, block: s.blockID, index: uint64(len(b.pieces) - 1), payload: size})
	return nil
}

func (r *recovery) frame(rec record) error {
	f, size, err := decodeFrame(rec.prefix, rec.length)
	if err != nil {
		return err
	}
	b := r.blocks[f.block]
	if b == nil {
		b = new(oldBlock)
		r.blocks[f.block] = b
	}
	b.framed = true
	done(r.needBlocks, f.block)

	s := r.segment(f.segmentID)
	if f.header != nil {
		s.seg.Header = *f.header
		s.partition = blockID{run: f.block.run, partition: f.block.partition}
	}
	// Of one that is written twice the later is on disk. They may come in any
	// order: only what was in doubt is written again.
	s.frames[f.index] = oldFrame{f.frame, extent{rec.body.file, rec.body.offset + rec.length - size, size}}
	if !s.delivered {
		need(r.needSegments, f.segmentID, rec.body.file)
	}
	r.doubtful = append(r.doubtful, doubtful{kind: rec.kind, body: rec.body, segment: f.segmentID, block: f.block, index: f.index, payload: size})
	return nil
}
