package spool

import (
	"errors"
	"maps"
	"slices"
)

// Salvage of damaged journals. The scan notes damaged ranges (addDamage). Then
// copyDamaged keeps their bytes for a person, and collect calls salvage for each
// segment that isDamaged. The rules are in docs/spool-format.md.

// damagedRange is a range of fsynced bytes that no longer reads back.
type damagedRange struct {
	file     *file
	from, to int64
}

// addDamage notes a damaged range.
func (r *recovery) addDamage(f *file, from, to int64) {
	r.damagedRanges = append(r.damagedRanges, damagedRange{f, from, to})
	r.result.DamagedBytes += to - from
	r.addDamagedFile(f)
}

// addDamagedFile notes the name of a damaged file once.
func (r *recovery) addDamagedFile(f *file) {
	if !slices.Contains(r.result.DamagedFiles, f.name) {
		r.result.DamagedFiles = append(r.result.DamagedFiles, f.name)
	}
}

// isDamaged reports whether a segment must be salvaged:
//
//   - A block of it is in another segment too, because a recovery was
//     interrupted while it salvaged one of them.
//   - Its frames do not match its seal.
//   - It has no seal, and no first frame or perhaps a lost seal.
func (r *recovery) isDamaged(s *oldSegment) bool {
	if slices.ContainsFunc(s.frames, s.isInOtherSegment) {
		return true
	}
	if s.seal != nil {
		return !s.matchesSeal()
	}
	return s.seg.Events == 0 || !r.neverSealed(s)
}

// neverSealed reports whether a segment without a seal can still be appended
// to. With any damage in the journal the answer is no: the lost bytes may have
// held its seal, and its object may be in S3.
func (r *recovery) neverSealed(s *oldSegment) bool {
	return len(r.damagedRanges) == 0 && s.seg.frames == uint64(len(s.frames))
}

// salvage moves the surviving frames of a segment to their partitions, to be
// delivered under new keys. The old key may hold an object that also has the
// missing frames.
func (r *recovery) salvage(s *oldSegment, parts unfinished) {
	var found int64 // events
	var last *UnfinishedPartition
	for i := range s.frames {
		f := &s.frames[i]
		found += f.events
		if s.isInOtherSegment(*f) {
			continue
		}
		to := s.destinationOf(f)
		if to == nil {
			r.result.Quarantined += f.events
			continue
		}
		last = parts.partition(f.partition.id, to.source, to.day)
		frame := f.unpack()
		last.Blocks = append(last.Blocks, RecoveredBlock{
			Run: frame.Run, Partition: frame.Partition, Block: frame.Block,
			First: frame.First, Last: frame.Last, files: r.j.files, damagedFrame: f,
		})
	}
	var lost int64
	if s.seal != nil {
		lost = max(0, s.seal.events-found)
	}
	if last == nil {
		r.result.Quarantined += lost
		r.j.Remove(s.seg)
		return
	}
	last.Damaged = append(last.Damaged, DamagedSegment{s.seg, lost})
}

// destinationOf returns the source and day of a frame, or nil. Only the first
// frame of a segment and each stage record them. Without these, any other
// record of the same partition serves.
func (s *oldSegment) destinationOf(f *oldFrame) *destination {
	if s.partition != nil {
		return s.partition.destination
	}
	return f.partition.destination
}

// framesWithoutDestination returns the frames that cannot be delivered because
// their source and day are lost.
func (s *oldSegment) framesWithoutDestination() (frames []extent) {
	if s.delivered {
		return nil
	}
	for i := range s.frames {
		if f := &s.frames[i]; s.destinationOf(f) == nil && !s.isInOtherSegment(*f) {
			frames = append(frames, f.at)
		}
	}
	return frames
}

// copyDamaged copies damaged ranges, and frames without a destination, to the
// "corrupt" subdirectory. It precedes adoptFiles, after which the files may be
// removed.
func (r *recovery) copyDamaged() error {
	parts := map[segmentID][]extent{}
	for id, s := range r.segments {
		if frames := s.framesWithoutDestination(); len(frames) > 0 {
			parts[id] = frames
		}
	}
	ranges := slices.DeleteFunc(slices.Clone(r.damagedRanges), func(d damagedRange) bool { return d.from == d.to })
	if len(ranges)+len(parts) == 0 {
		return nil
	}
	err := r.j.withCorruptDir(func(c *corruptDir) error {
		for _, d := range ranges {
			if err := r.countCopy(c.copyRange(r.j.files.newWindow(d.file, d.to, r.unreadableIsDamaged), d.from)); err != nil {
				return err
			}
		}
		for _, id := range slices.SortedFunc(maps.Keys(parts), compareSegments) {
			if err := r.countCopy(c.copyFrames(id, r.j.files, parts[id])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && r.unreadableIsDamaged { // a later try would fail too
		r.result.CopyErr = err
		return nil
	}
	return err
}

// countCopy adds the size of a copy, or notes that there was no room for one.
func (r *recovery) countCopy(size int64, err error) error {
	r.result.CopiedBytes += size
	if errors.Is(err, errCorruptDirFull) {
		r.result.CopyErr = err
		return nil
	}
	return err
}
