package spool

import (
	"fmt"
	"runtime"
	"time"

	"github.com/s3sink/s3sink/internal/vfs"
)

// maxStage bounds a stage record, and with it what recovery must read at once.
const maxStage = 1 << 20

// commit is one group, for which several callers may wait.
type commit struct {
	waiting int
	done    chan struct{}
	err     error
}

// ended reports whether it was made.
func (c *commit) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// entry is a record to write, and what follows when it is on disk.
type entry struct {
	write func(*writer) error
	wrote func(extent) // it is on disk there
	then  func()       // all of its group is
	bytes int64
	at    extent // where write put it

	segment segmentID // of a frame or a seal
	framed  *blockID  // of a frame
	texts   int64     // bytes of texts in its record
	drains  bool      // it may be written before others, to empty a full volume
}

// group is what one commit writes: copies, then stages, then frames and seals in
// the order in which they were made, so that a seal is behind its frames wherever
// the file is cut.
type group struct {
	copies []liveRecord
	stages []Stage
	queue  []entry
}

func (g *group) empty() bool { return len(g.copies)+len(g.stages)+len(g.queue) == 0 }

// write returns a function that writes the group into a file.
func (g *group) write(j *Journal) func(*file, *writer) error {
	return func(f *file, w *writer) error {
		w.group(f.durable)
		if f.nextID = j.lastID(); f.nextID > f.lastID {
			w.lastID(f.nextID)
		}
		for i := range g.copies {
			g.copies[i].write(w)
			g.copies[i].now = w.last(f)
			if err := f.spill(w, maxQueued); err != nil {
				return err
			}
		}
		for i := range g.stages {
			if err := j.stage(&g.stages[i], f, w); err != nil {
				return err
			}
		}
		for i := range g.queue {
			if err := g.queue[i].write(w); err != nil {
				return err
			}
			g.queue[i].at = w.last(f)
			if err := f.spill(w, maxQueued); err != nil {
				return err
			}
		}
		return f.spill(w, 0)
	}
}

func (j *Journal) loop() {
	for {
		select {
		case <-j.wake:
			j.turn.Lock()
			j.commit()
			j.turn.Unlock()
		case <-j.stop:
			j.last()
			return
		}
	}
}

// last makes the last commit, and more of them for those who have come meanwhile.
// Who comes later learns how it went: all that there was is in it.
func (j *Journal) last() {
	j.turn.Lock()
	defer j.turn.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.next.waiting++; j.next.waiting > 0; {
		j.mu.Unlock()
		j.commit()
		j.mu.Lock()
	}
	j.closed = true
}

// yield lets those whom the last commit has woken join this one, if somebody
// waits for it: with 64 callers a sync serves twice as many then. But whatever
// else the process has to do comes first as well, which takes long where the
// processors do not suffice. If they join more slowly than they do meanwhile, it
// is left for a while.
func (j *Journal) yield() {
	if j.crowd < 2 {
		return
	}
	began, before := time.Now(), j.waiting()
	if before == 0 || began.Before(j.yieldAt) {
		return
	}
	runtime.Gosched()
	now := time.Now()
	took := now.Sub(began)
	j.yieldAt = now.Add(pause(before, began.Sub(j.began), j.waiting()-before, took))
}

// pause returns how long not to yield, when one has brought so many callers in the
// time that it took, and the time before so many.
func pause(before int, in time.Duration, joined int, took time.Duration) time.Duration {
	if float64(joined)*float64(in) >= float64(before)*float64(took) {
		return 0
	}
	return 4 * took
}

// waiting returns how many callers the next commit has, those included who have
// been called off.
func (j *Journal) waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next.waiting
}

// commit brings everything that there is to the disk; of lines without a frame
// only those that are due, if nobody waits. The blocks are asked before the
// queue: a block that gets its frame in between is in both, which is harmless,
// and not in neither.
func (j *Journal) commit() {
	j.yield()
	j.mu.Lock()
	c := j.next
	j.next = &commit{done: make(chan struct{})}
	seen := j.changes // later ones may come after their source was gathered
	j.mu.Unlock()

	all := time.Now()
	due := all
	if c.waiting > 0 {
		j.crowd, j.began = c.waiting, all
	} else {
		due = due.Add(-j.set.Interval / 2)
	}
	stages, more := j.set.Gather(due)
	stages = append(j.held, stages...)
	j.mu.Lock()
	if more {
		all = due
		j.armLocked()
	}
	queue := j.queue
	j.queue, j.queued = nil, 0
	j.mu.Unlock()

	done, left, err := j.write(group{copies: j.cleaner.next(), stages: stages, queue: queue})
	j.mu.Lock()
	j.err = err
	if err != nil {
		j.queue = append(left.queue, j.queue...)
		j.armLocked()
	} else {
		j.syncedLocked(all, seen, more)
	}
	j.mu.Unlock()
	j.held = left.stages
	if !done.empty() {
		j.settle(done)
	}
	j.reap() // also when the disk is full
	j.clean()
	j.files.renewReserve()
	j.bytes.Store(j.files.size())
	j.lookAtVolume()
	c.err = err
	close(c.done)
}

// syncedLocked notes a commit of everything from before a time, and of the
// changes up to seen unless Gather left more for a later one.
func (j *Journal) syncedLocked(before time.Time, seen uint64, more bool) {
	if before.After(j.synced) {
		j.synced = before
	}
	if !more {
		j.committed = seen
	}
}

// write brings a group to the disk, to another file if the first try fails. If it
// fails with copies, it is written without them: perhaps there is no room for them.
// It returns the parts of the group that are on disk and that are not.
func (j *Journal) write(all group) (done, left group, err error) {
	tries := 2
	if len(all.copies) > 0 {
		tries = 1
		err := j.attempt(all, j.roomToCopy(all.size()), 1)
		if j.cleaner.settle(err); err == nil {
			return all, group{}, nil
		}
		all.copies = nil
	}
	if all.empty() {
		return all, group{}, nil
	}
	err = j.attempt(all, j.files.reserve.room(), tries)
	if err == nil {
		return all, group{}, nil
	}
	if vfs.IsFull(err) {
		done.queue, all.queue = j.writeFull(all.queue)
		all.stages = j.unframed(all.stages, done.queue)
	}
	if all.empty() {
		return done, all, nil
	}
	return done, all, fmt.Errorf("commit to the journal: %w", err)
}

// attempt tries to write a group once or twice, if it has no more bytes than room.
func (j *Journal) attempt(g group, room int64, tries int) error {
	if size := g.size(); size > room {
		return fmt.Errorf("the volume has room for %d bytes more, not for %d: %w", max(0, room), size, vfs.ErrFull)
	}
	err := j.files.write(g.write(j))
	if err != nil && tries > 1 {
		err = j.files.write(g.write(j))
	}
	return err
}

// stage writes lines as records of a bounded length.
func (j *Journal) stage(s *Stage, f *file, w *writer) error {
	record := stageRecord{
		blockID: blockID{j.run, s.Partition, s.Block},
		source:  s.Source, day: s.Day, offset: s.Offset, first: s.First, last: s.Last,
	}
	var pieces [][]byte
	size := 0
	s.written = share{file: f}
	write := func() error {
		w.stage(&record, pieces)
		s.written.records++
		s.written.bytes += w.last(f).size
		record.offset += int64(size)
		pieces, size = pieces[:0], 0
		return f.spill(w, maxQueued)
	}
	for _, piece := range s.Lines {
		for len(piece) > 0 {
			n := min(len(piece), maxStage-size)
			pieces, size = append(pieces, piece[:n]), size+n
			piece = piece[n:]
			if size < maxStage {
				continue
			}
			if err := write(); err != nil {
				return err
			}
		}
	}
	if size == 0 {
		return nil
	}
	return write()
}

// settle tells everybody that a group is on disk.
func (j *Journal) settle(g group) {
	for i := range g.stages {
		s := &g.stages[i]
		need(j.files.blocks, blockID{j.run, s.Partition, s.Block}, s.written)
		j.cleaner.earn(s.written.bytes)
		s.Release()
	}
	for i := range g.queue {
		if e := &g.queue[i]; e.wrote != nil {
			e.wrote(e.at)
			j.cleaner.earn(e.at.size)
		}
	}
	for i := range g.queue {
		if e := &g.queue[i]; e.then != nil {
			e.then()
		}
	}
	j.files.roll()
}

// clean asks for the next commit if the cleaner has work for it.
func (j *Journal) clean() {
	switch now, later := j.cleaner.ready(); {
	case now:
		j.nudge()
	case later:
		j.mu.Lock()
		j.armLocked()
		j.mu.Unlock()
	}
}

// reap removes a file that is not needed. Who commits waits for it, so the next
// one goes in a commit of its own.
func (j *Journal) reap() {
	switch more, err := j.files.reap(1); {
	case more:
		j.nudge()
	case err != nil: // perhaps nobody has anything to commit: room must come all the same
		j.mu.Lock()
		j.armLocked()
		j.mu.Unlock()
	}
}
