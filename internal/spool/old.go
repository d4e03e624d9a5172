package spool

import (
	"cmp"
	"slices"
	"time"
)

// The metadata that a scan keeps. There may be very many segments, so a
// complete segment keeps only the places of its frames, and a delivered one
// only that fact. The metadata of all frames is needed only when a block turns
// out to be in two segments. Recovery then starts over with
// recovery.keepAllFrames.

// destination is the source and the received-day of events.
type destination struct {
	source string
	day    time.Time
}

// oldPartition is a partition of a previous run.
type oldPartition struct {
	id          blockID        // with block 0
	destination *destination   // nil until a stage or the first frame of a segment is found
	segments    []blockSegment // by block number
}

// blockSegment names the segment that has the frame of a block. If an
// interrupted recovery left the block in two segments, it is the later one.
type blockSegment struct {
	block   uint64
	segment *oldSegment
}

// setDestination notes the source and day of the partition, once.
func (p *oldPartition) setDestination(source string, day time.Time) {
	if p.destination == nil {
		p.destination = &destination{source, day}
	}
}

func (p *oldPartition) find(block uint64) (at int, ok bool) {
	if last := len(p.segments) - 1; last < 0 || p.segments[last].block < block { // almost always, because blocks come in order
		return last + 1, false
	}
	return slices.BinarySearchFunc(p.segments, block, func(b blockSegment, n uint64) int { return cmp.Compare(b.block, n) })
}

// segmentOf returns the segment that has the frame of a block, or nil.
func (p *oldPartition) segmentOf(block uint64) *oldSegment {
	if at, ok := p.find(block); ok {
		return p.segments[at].segment
	}
	return nil
}

// setSegment notes the segment that has the frame of a block.
func (p *oldPartition) setSegment(block uint64, s *oldSegment) {
	at, ok := p.find(block)
	if !ok {
		p.segments = slices.Insert(p.segments, at, blockSegment{block: block})
	}
	p.segments[at].segment = s
}

// oldSegment is a segment of a previous run.
type oldSegment struct {
	seg       *Segment      // nil after forget
	partition *oldPartition // nil until the first frame is found
	seal      *sealRecord
	sealAt    extent     // body of the seal record
	frames    []oldFrame // by index; nil after forget and compact
	complete  bool       // matches its seal, and frames was dropped
	delivered bool
}

// oldFrame is a frame without its payload. It is packed, because there may be a
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

func packFrame(f *frameRecord, at extent, p *oldPartition) oldFrame {
	return oldFrame{
		index: f.index, at: at, partition: p, block: f.block.block,
		events: f.frame.Events, raw: f.frame.Raw, rawCRC: f.frame.RawCRC, crc: f.frame.CRC,
		first: f.frame.First.UnixMilli(), last: f.frame.Last.UnixMilli(),
	}
}

func (f *oldFrame) unpack() Frame {
	all := Frame{
		Events: f.events, First: time.UnixMilli(f.first).UTC(), Last: time.UnixMilli(f.last).UTC(),
		Run: f.partition.id.run, Partition: f.partition.id.partition, Block: f.block,
	}
	all.Raw, all.RawCRC, all.CRC = f.raw, f.rawCRC, f.crc
	return all
}

// isInOtherSegment reports whether a later segment has a frame of the same
// block. An interrupted recovery left both.
func (s *oldSegment) isInOtherSegment(f oldFrame) bool { return f.partition.segmentOf(f.block) != s }

func (s *oldSegment) find(index uint64) (at int, ok bool) {
	return slices.BinarySearchFunc(s.frames, index, func(f oldFrame, n uint64) int { return cmp.Compare(f.index, n) })
}

// extentOf returns the place of a frame's payload, if the frame is known.
func (s *oldSegment) extentOf(index uint64) (at extent, ok bool) {
	if i, ok := s.find(index); ok {
		return s.frames[i].at, true
	}
	if s.complete && index < s.seg.frames {
		return s.seg.disk[index], true
	}
	return at, false
}

// hasFrame reports whether a frame is known.
func (s *oldSegment) hasFrame(index uint64) bool {
	if s.complete {
		return index < s.seg.frames
	}
	_, ok := s.find(index)
	return ok
}

// putFrame adds a frame, or replaces an earlier copy of it. Frames may come in
// any order, because only some of them were written again.
func (s *oldSegment) putFrame(f oldFrame) {
	if s.setExtent(f.index, f.at); s.complete {
		return
	}
	at, ok := s.find(f.index)
	if !ok {
		s.frames = slices.Insert(s.frames, at, f)
	}
	s.frames[at] = f
}

// setExtent notes the new place of a frame's payload, if the frame is known.
func (s *oldSegment) setExtent(index uint64, to extent) {
	if index < uint64(len(s.seg.disk)) {
		s.seg.disk[index] = to
	}
	if at, ok := s.find(index); ok {
		s.frames[at].at = to
	}
}

// joinFrames adds the frames to the segment, up to the first missing one.
func (s *oldSegment) joinFrames() {
	if s.seg.disk == nil {
		s.seg.disk = make([]extent, 0, len(s.frames))
	}
	for s.seg.frames < uint64(len(s.frames)) {
		f := &s.frames[s.seg.frames]
		if f.index != s.seg.frames {
			return
		}
		all := f.unpack()
		s.seg.addSize(&all, f.at.size)
		s.seg.disk = append(s.seg.disk, f.at)
		s.seg.frames++
	}
}

// matchesSeal completes the segment, and reports whether it matches its
// seal.
func (s *oldSegment) matchesSeal() bool {
	if s.complete {
		return true
	}
	if s.seg.frames != s.seal.frames || s.seg.Events != s.seal.events {
		return false
	}
	s.seg.seal()
	return s.seg.Size() == s.seal.size && s.seg.CRC32() == s.seal.crc
}

// compact drops the frame metadata if the frames match the seal.
func (s *oldSegment) compact() {
	if s.complete || s.seal == nil || s.seal.frames != uint64(len(s.frames)) {
		return
	}
	if s.joinFrames(); s.matchesSeal() {
		s.frames, s.complete = nil, true
	}
}

// forgotten reports whether forget was called.
func (s *oldSegment) forgotten() bool { return s.seg == nil }

// forget drops everything except the delivered flag.
func (s *oldSegment) forget() { *s = oldSegment{delivered: true} }

func compareSegments(a, b segmentID) int {
	return cmp.Or(cmp.Compare(a.run, b.run), cmp.Compare(a.sequence, b.sequence))
}
