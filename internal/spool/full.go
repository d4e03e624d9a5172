package spool

import "slices"

// How the journal writes to a full volume.
//
// It does not wait for ENOSPC, because a write that fails half-way costs a
// file. It compares the size of a group with the free bytes before the write,
// and then tries these steps until one succeeds:
//
//   1. The whole group, without using the reserve, or the room for it while it
//      is given up.
//   2. The entries without the stages, within the same room. A block whose
//      frame is on disk needs no stages.
//   3. The reserve is given up, and the entries may use three quarters of it.
//   4. The last quarter is for entries that drain the spool
//      (entry.drainsSpool), ahead of all others. They are small, and each lets
//      an upload begin or a file be removed.
//
// A group gets at most half of the room of its step, except in step 4, so that
// recovery can write the group again if a crash leaves it in doubt.
//
// New events never use the reserve. Their stages are written in step 1 alone,
// so their callers get an error.

// writeToFullVolume performs steps 2 to 4. It returns the entries that are on
// disk, and the others.
func (j *Journal) writeToFullVolume(queue []entry) (done, left []entry) {
	if len(queue) == 0 {
		return nil, nil
	}
	r := &j.files.reserve
	for step := range 3 {
		room := r.room() / 2
		first, rest := queue, []entry(nil)
		switch step {
		case 1:
			r.giveUp()
			room = (r.freeBytes() - r.want/4) / 2
		case 2:
			room = max(r.freeBytes(), r.want) // the system may report less than there is
			first, rest = drainFirst(queue)
		}
		n := countFitting(first, room)
		if n > 0 && j.tryGroup(group{queue: first[:n]}, room, 1) == nil {
			return first[:n], slices.Concat(first[n:], rest)
		}
	}
	return nil, queue
}

// roomToCopy returns the room for a group with copies. Until the oldest file is
// removed, its copies need room beside it. So a file is cleaned only if half of
// the room holds all its live bytes. Cleaning never uses the reserve: during a long
// outage of S3 it would use it up, and the full spool could not be drained.
func (j *Journal) roomToCopy() int64 {
	return j.files.reserve.room()/2 - j.files.all[0].liveBytes
}

// drainFirst moves the entries that drain the spool to the front. Both parts
// keep their order. A seal is among them if no frame of its segment is queued.
func drainFirst(queue []entry) (first, rest []entry) {
	framed := map[segmentID]bool{}
	for i := range queue {
		if e := &queue[i]; e.framedBlock != nil {
			framed[e.segment] = true
		}
	}
	for _, e := range queue {
		if e.drainsSpool || e.framedBlock == nil && e.segment != (segmentID{}) && !framed[e.segment] {
			first = append(first, e)
		} else {
			rest = append(rest, e)
		}
	}
	return first, rest
}

// dropFramedStages returns the stages of blocks without a frame among the
// written entries. It releases the others, because the frame has their lines.
func (j *Journal) dropFramedStages(stages []Stage, written []entry) []Stage {
	framed := map[blockID]bool{}
	for i := range written {
		if id := written[i].framedBlock; id != nil {
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
	groupOverhead  = 1 << 10 // file header, watermarks and group record
	recordOverhead = 256     // a record without lines, payload and strings
)

// size returns an upper bound for the bytes of the group's records.
func (g *group) size() int64 {
	n := int64(groupOverhead)
	for i := range g.copies {
		n += g.copies[i].from.size
	}
	for i := range g.stages {
		lines := int64(0)
		for _, l := range g.stages[i].Lines {
			lines += int64(len(l))
		}
		n += lines + (lines/maxStage+1)*(recordOverhead+int64(len(g.stages[i].Source)))
	}
	for i := range g.queue {
		n += g.queue[i].size()
	}
	return n
}

func (e *entry) size() int64 { return e.payloadBytes + e.textBytes + recordOverhead }

// countFitting returns the number of leading entries that fit into a group of
// room bytes.
func countFitting(queue []entry, room int64) int {
	size := int64(groupOverhead)
	for i := range queue {
		if size += queue[i].size(); size > room {
			return i
		}
	}
	return len(queue)
}
