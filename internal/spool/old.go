package spool

import (
	"cmp"
	"slices"
	"time"
)

// What recovery remembers. There may be very many segments: of one that is whole
// it keeps where its frames are, and of one that is delivered that it is. What each
// frame is it asks only where damage came: when a block turns out to be in two
// segments it starts over, and keeps that of all of them (recovery.each).

// home is where events belong.
type home struct {
	source string
	day    time.Time
}

// oldPartition is a partition of a run.
type oldPartition struct {
	id     blockID       // less the block
	home   *home         // or nil: neither a stage nor the first frame of a segment has said so
	framed []framedBlock // by number
}

// framedBlock is a block that has a frame, and the segment that has that; the
// last one, if damage has it in two.
type framedBlock struct {
	number uint64
	in     *oldSegment
}

// is notes where the partition's events belong.
func (p *oldPartition) is(source string, day time.Time) {
	if p.home == nil {
		p.home = &home{source, day}
	}
}

func (p *oldPartition) find(block uint64) (at int, ok bool) {
	if last := len(p.framed) - 1; last < 0 || p.framed[last].number < block { // nearly always: they come in order
		return last + 1, false
	}
	return slices.BinarySearchFunc(p.framed, block, func(b framedBlock, n uint64) int { return cmp.Compare(b.number, n) })
}

// in returns the segment that has a block's frame, or nil.
func (p *oldPartition) in(block uint64) *oldSegment {
	if at, ok := p.find(block); ok {
		return p.framed[at].in
	}
	return nil
}

// put notes that a segment has a block's frame.
func (p *oldPartition) put(block uint64, s *oldSegment) {
	at, ok := p.find(block)
	if !ok {
		p.framed = slices.Insert(p.framed, at, framedBlock{number: block})
	}
	p.framed[at].in = s
}

// oldSegment is a segment of an earlier run.
type oldSegment struct {
	seg       *Segment      // nil when it is forgotten
	partition *oldPartition // nil while its first frame was not found
	seal      *sealRecord
	sealAt    extent     // the body of its record
	frames    []oldFrame // by index; none when it is forgotten, or joined for good
	joined    bool       // whole, and its frames are forgotten
	delivered bool
}

// oldFrame is a frame less its payload. It is packed, because there may be a
// million of them.
type oldFrame struct {
	index       uint64
	at          extent
	partition   *oldPartition
	block       uint64
	events, raw int64
	first, last int64 // Unix milliseconds
	rawCRC, crc uint32
}

func packed(f *frameRecord, at extent, p *oldPartition) oldFrame {
	return oldFrame{
		index: f.index, at: at, partition: p, block: f.block.block,
		events: f.frame.Events, raw: f.frame.Raw, rawCRC: f.frame.RawCRC, crc: f.frame.CRC,
		first: f.frame.First.UnixMilli(), last: f.frame.Last.UnixMilli(),
	}
}

func (f *oldFrame) frame() Frame {
	all := Frame{
		Events: f.events, First: time.UnixMilli(f.first).UTC(), Last: time.UnixMilli(f.last).UTC(),
		Run: f.partition.id.run, Partition: f.partition.id.partition, Block: f.block,
	}
	all.Raw, all.RawCRC, all.CRC = f.raw, f.rawCRC, f.crc
	return all
}

// moving reports whether the block of a frame is in another segment too, where a
// recovery was about to take it.
func (s *oldSegment) moving(f oldFrame) bool { return f.partition.in(f.block) != s }

func (s *oldSegment) find(index uint64) (at int, ok bool) {
	return slices.BinarySearchFunc(s.frames, index, func(f oldFrame, n uint64) int { return cmp.Compare(f.index, n) })
}

// at returns where a frame is, if it is known.
func (s *oldSegment) at(index uint64) (at extent, ok bool) {
	if i, ok := s.find(index); ok {
		return s.frames[i].at, true
	}
	if s.joined && index < s.seg.frames {
		return s.seg.disk[index], true
	}
	return at, false
}

// has reports whether a frame is known.
func (s *oldSegment) has(index uint64) bool {
	if s.joined {
		return index < s.seg.frames
	}
	_, ok := s.find(index)
	return ok
}

// put adds a frame. Of one that is written twice the later is on disk. They may
// come in any order: only what was in doubt is written again.
func (s *oldSegment) put(f oldFrame) {
	if s.move(f.index, f.at); s.joined {
		return
	}
	at, ok := s.find(f.index)
	if !ok {
		s.frames = slices.Insert(s.frames, at, f)
	}
	s.frames[at] = f
}

// move notes where a frame is now, if it is known.
func (s *oldSegment) move(index uint64, to extent) {
	if index < uint64(len(s.seg.disk)) {
		s.seg.disk[index] = to
	}
	if at, ok := s.find(index); ok {
		s.frames[at].at = to
	}
}

// join puts the frames into the segment, up to the first that is missing.
func (s *oldSegment) join() {
	if s.seg.disk == nil {
		s.seg.disk = make([]extent, 0, len(s.frames))
	}
	for s.seg.frames < uint64(len(s.frames)) {
		f := &s.frames[s.seg.frames]
		if f.index != s.seg.frames {
			return
		}
		all := f.frame()
		s.seg.addSize(&all, f.at.size)
		s.seg.disk = append(s.seg.disk, f.at)
		s.seg.frames++
	}
}

// whole completes the segment, and reports whether it is what was sealed.
func (s *oldSegment) whole() bool {
	if s.joined {
		return true
	}
	if s.seg.frames != s.seal.frames || s.seg.Events != s.seal.events {
		return false
	}
	s.seg.seal()
	return s.seg.Size() == s.seal.size && s.seg.CRC32() == s.seal.crc
}

// fold forgets what the frames are, once they make up what was sealed.
func (s *oldSegment) fold() {
	if s.joined || s.seal == nil || s.seal.frames != uint64(len(s.frames)) {
		return
	}
	if s.join(); s.whole() {
		s.frames, s.joined = nil, true
	}
}

// forgotten reports whether forget was called.
func (s *oldSegment) forgotten() bool { return s.seg == nil }

// forget lets go of a segment that is delivered, but for that.
func (s *oldSegment) forget() { *s = oldSegment{delivered: true} }
