package spool

import "slices"

// A full volume.
//
// The journal does not wait for ENOSPC: it asks how much room there is before it
// writes a group, because a write that fails half-way costs a file. What follows
// is tried in turn, until something is written:
//
//  1. The whole group. It leaves the reserve alone, and, while the reserve is given
//     up, the room for it.
//  2. The entries without the stages, likewise. A block whose frame is on disk does
//     not need its stages any more, so the frame alone does for both.
//  3. The reserve is given up, and the entries may have three quarters of it.
//  4. The last quarter is for entries that drain the spool (entry.drains), ahead of
//     all others. They are small, and each one lets an upload begin or a file go.
//
// New events never take room from the reserve: their stages are in the group of
// step 1 alone, so their callers get an error.

// writeFull writes entries to a full volume, and returns those that are on disk
// and those that are not.
func (j *Journal) writeFull(queue []entry) (done, left []entry) {
	if len(queue) == 0 {
		return nil, nil
	}
	r := &j.files.reserve
	for step := range 3 {
		room := r.room()
		first, rest := queue, []entry(nil)
		switch step {
		case 1:
			r.giveUp()
			room = r.free() - r.want/4
		case 2:
			room = max(r.free(), r.want) // perhaps it is more than the system tells
			first, rest = drainFirst(queue)
		}
		n := fitting(first, room)
		if n > 0 && j.attempt(group{queue: first[:n]}, room, 1) == nil {
			return first[:n], slices.Concat(first[n:], rest)
		}
	}
	return nil, queue
}

// roomToCopy returns how many bytes a group with copies may have: cleaning gives
// room back, so it may use half of the reserve.
func (j *Journal) roomToCopy(size int64) int64 {
	r := &j.files.reserve
	if room := r.room(); size <= room {
		return room
	}
	r.giveUp()
	return r.free() - r.want/2
}

// drainFirst puts the entries first that empty a full volume. Their order among
// themselves stays, and so does that of the others. A seal is among them if no
// frame of its segment is in the queue.
func drainFirst(queue []entry) (first, rest []entry) {
	framed := map[segmentID]bool{}
	for i := range queue {
		if e := &queue[i]; e.framed != nil {
			framed[e.segment] = true
		}
	}
	for _, e := range queue {
		if e.drains || e.framed == nil && e.segment != (segmentID{}) && !framed[e.segment] {
			first = append(first, e)
		} else {
			rest = append(rest, e)
		}
	}
	return first, rest
}

// unframed returns the stages of blocks that have no frame among the entries, and
// releases the others: the frame has their lines.
func (j *Journal) unframed(stages []Stage, written []entry) []Stage {
	framed := map[blockID]bool{}
	for i := range written {
		if id := written[i].framed; id != nil {
			framed[*id] = true
		}
	}
	return slices.DeleteFunc(stages, func(s Stage) bool {
		if !framed[blockID{j.run, s.Partition, s.Block}] {
			return false
		}
		s.Release()
		return true
	})
}

const (
	groupSize  = 1 << 10 // of the beginning of a file and of a group
	recordSize = 256     // of a record without lines, payload and texts
)

// size returns how many bytes the group's records have at most.
func (g *group) size() int64 {
	n := int64(groupSize)
	for i := range g.copies {
		n += g.copies[i].was.size
	}
	for i := range g.stages {
		lines := int64(0)
		for _, l := range g.stages[i].Lines {
			lines += int64(len(l))
		}
		n += lines + (lines/maxStage+1)*(recordSize+int64(len(g.stages[i].Source)))
	}
	for i := range g.queue {
		n += g.queue[i].size()
	}
	return n
}

func (e *entry) size() int64 { return e.bytes + e.texts + recordSize }

// fitting returns how many of the first entries fit into a group of so many bytes.
func fitting(queue []entry, room int64) int {
	size := int64(groupSize)
	for i := range queue {
		if size += queue[i].size(); size > room {
			return i
		}
	}
	return len(queue)
}
