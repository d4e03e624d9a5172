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

// salvage takes what is left of a segment to where it can be delivered. Its own
// key may be taken, by an object that has what is missing here.
func (r *recovery) salvage(s *oldSegment, tail func(blockID, string, time.Time) *Tail) {
	var whole int64
	var last *Tail
	for i := range s.frames {
		f := &s.frames[i]
		whole += f.events
		if s.moving(*f) {
			continue
		}
		home := s.home(f)
		if home == nil {
			r.found.Quarantined += f.events
			continue
		}
		last = tail(f.partition.id, home.source, home.day)
		frame := f.frame()
		last.Blocks = append(last.Blocks, Leftover{
			Run: frame.Run, Partition: frame.Partition, Block: frame.Block,
			First: frame.First, Last: frame.Last, files: r.j.files, framed: f,
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

// home returns where a frame belongs, or nil. Only the first frame of a segment
// says so, and every stage: if there is neither, others of its partition know.
func (s *oldSegment) home(f *oldFrame) *home {
	if s.partition != nil {
		return s.partition.home
	}
	return f.partition.home
}

// homeless returns the frames of a segment of which nobody knows where they
// belong.
func (s *oldSegment) homeless() (frames []extent) {
	if s.delivered {
		return nil
	}
	for i := range s.frames {
		if f := &s.frames[i]; s.home(f) == nil && !s.moving(*f) {
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
	first := r.segments[t.Segment.id()].frames[0].block
	n, _ := slices.BinarySearchFunc(t.Blocks, first, func(l Leftover, first uint64) int { return cmp.Compare(l.Block, first) })
	return n
}

// preserve copies what is damaged, and what cannot be delivered because of it,
// before the files can go.
func (r *recovery) preserve() error {
	parts := map[segmentID][]extent{}
	for id, s := range r.segments {
		if frames := s.homeless(); len(frames) > 0 {
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
