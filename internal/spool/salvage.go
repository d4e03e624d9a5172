package spool

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"
)

// hole is a range of a file that is damaged: it had been brought to the disk.
type hole struct {
	file     *file
	from, to int64
}

// hole notes one.
func (r *recovery) hole(f *file, from, to int64) {
	r.holes = append(r.holes, hole{f, from, to})
	r.found.DamagedSize += to - from
	r.damaged(f)
}

// damaged notes that a file is, once.
func (r *recovery) damaged(f *file) {
	if !slices.Contains(r.found.Damaged, f.name) {
		r.found.Damaged = append(r.found.Damaged, f.name)
	}
}

func compareSegments(a, b segmentID) int {
	return cmp.Or(cmp.Compare(a.run, b.run), cmp.Compare(a.sequence, b.sequence))
}

// open reports whether a segment without a seal never had one: then it was not
// put, and more can be appended to it. A seal may be in any hole.
func (r *recovery) open(s *oldSegment) bool {
	return len(r.holes) == 0 && s.seg.frames == uint64(len(s.frames))
}

// moving reports whether blocks of a segment are in another one too, where a
// recovery was about to take it.
func (r *recovery) moving(s *oldSegment) bool {
	for _, f := range s.frames {
		if r.blocks[f.block].segment != s.seg.id() {
			return true
		}
	}
	return false
}

// salvage takes what is left of a segment to where it can be delivered. Its own
// key may be taken, by an object that has what is missing here.
func (r *recovery) salvage(s *oldSegment, tail func(blockID, string, time.Time) *Tail) {
	var whole int64
	var last *Tail
	for _, i := range slices.Sorted(maps.Keys(s.frames)) {
		f := s.frames[i]
		whole += f.frame.Events
		if r.blocks[f.block].segment != s.seg.id() {
			continue
		}
		home, ok := r.home(s, f.block)
		if !ok {
			r.found.Quarantined += f.frame.Events
			continue
		}
		last = tail(f.block, home.source, home.day)
		last.Blocks = append(last.Blocks, Leftover{
			Run: f.block.run, Partition: f.block.partition, Block: f.block.block,
			First: f.frame.First, Last: f.frame.Last, files: r.j.files, framed: &f,
		})
	}
	var lost int64
	if s.seal != nil {
		lost = max(0, s.seal.events-whole)
	}
	if last == nil {
		r.found.Quarantined += lost
		r.j.Remove(s.seg)
		return
	}
	last.Broken = append(last.Broken, Broken{s.seg, lost})
}

// home is where events belong.
type home struct {
	source string
	day    time.Time
}

// home returns where a frame belongs. Only the first frame of a segment says
// so, and every stage: if there is neither, others of its partition know.
func (r *recovery) home(s *oldSegment, block blockID) (home, bool) {
	if _, ok := s.frames[0]; ok {
		return home{s.seg.Source, s.seg.Day}, true
	}
	if r.homes == nil {
		r.homes = map[blockID]home{}
		for id, b := range r.blocks {
			if len(b.pieces) > 0 {
				id.block = 0
				r.homes[id] = home{b.stage.source, b.stage.day}
			}
		}
		for _, s := range r.segments {
			if _, ok := s.frames[0]; ok {
				r.homes[s.partition] = home{s.seg.Source, s.seg.Day}
			}
		}
	}
	block.block = 0
	h, ok := r.homes[block]
	return h, ok
}

// homeless returns the frames of a segment of which nobody knows where they
// belong.
func (r *recovery) homeless(s *oldSegment) (frames []extent) {
	if _, ok := s.frames[0]; ok || s.delivered {
		return nil
	}
	for _, i := range slices.Sorted(maps.Keys(s.frames)) {
		f := s.frames[i]
		if _, ok := r.home(s, f.block); !ok && r.blocks[f.block].segment == s.seg.id() {
			frames = append(frames, f.at)
		}
	}
	return frames
}

// ahead returns how many blocks of a tail come before its segment.
func (r *recovery) ahead(t *Tail) int {
	if t.Segment == nil {
		return 0
	}
	first := r.segments[t.Segment.id()].frames[0].block.block
	n, _ := slices.BinarySearchFunc(t.Blocks, first, func(l Leftover, first uint64) int { return cmp.Compare(l.Block, first) })
	return n
}

// preserve copies what is damaged, and what cannot be delivered because of it,
// before the files can go.
func (r *recovery) preserve() error {
	parts := map[segmentID][]extent{}
	for id, s := range r.segments {
		if frames := r.homeless(s); len(frames) > 0 {
			parts[id] = frames
		}
	}
	holes := slices.DeleteFunc(slices.Clone(r.holes), func(h hole) bool { return h.from == h.to })
	if len(holes)+len(parts) == 0 {
		return nil
	}
	err := r.j.keep(func(c *copies) error {
		for _, h := range holes {
			if err := r.note(c.keepRange(r.j.files.window(h.file, h.to, r.blind), h.from)); err != nil {
				return err
			}
		}
		for _, id := range slices.SortedFunc(maps.Keys(parts), compareSegments) {
			if err := r.note(c.keepPart(id, r.j.files, parts[id])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && r.blind { // it will not work later either
		r.found.Unkept = err
		return nil
	}
	return err
}

// note counts a copy, or why there is none.
func (r *recovery) note(size int64, err error) error {
	r.found.Kept += size
	if errors.Is(err, errNoRoom) {
		r.found.Unkept = err
		return nil
	}
	return err
}
