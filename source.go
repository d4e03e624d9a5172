package s3sink

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/s3sink/s3sink/internal/budget"
	"github.com/s3sink/s3sink/internal/upload"
)

// Source tracks the events of one source id. All sources of a sink share its
// memory, its uploads and its bucket. A Source is safe for concurrent use. It
// needs no Close: an unreachable Source without pending events is freed.
type Source struct {
	sink *Sink
	id   string

	mu      sync.Mutex
	parts   []*partition // open, one for each day
	current *partition   // of the last line
	latest  time.Time    // received time of the last line, wall clock
	dirty   bool         // has unstaged lines and is in batcher.dirty

	queue []*block // cut and not in a segment yet, in the order of the cut; guarded by batcher.mu
}

var carriageReturn = []byte{'\r'}

// clockNoise is how far the clock may go back without opening a new object.
// Goroutines read the clock before they lock the source, so received times near
// midnight arrive out of order.
const clockNoise = time.Minute

// noWait is the context of calls that do not wait for room.
var noWait context.Context = neverWait{context.Background()}

type neverWait struct{ context.Context }

// ID returns the source id.
func (s *Source) ID() string { return s.id }

// Track is [Sink.Track] for this source.
func (s *Source) Track(event any) error { return s.countRejection(s.track(noWait, event)) }

// TrackContext is [Sink.TrackContext] for this source.
func (s *Source) TrackContext(ctx context.Context, event any) error {
	return s.countRejection(s.track(ctx, event))
}

// TrackLine is [Sink.TrackLine] for this source.
func (s *Source) TrackLine(line []byte) error { return s.countRejection(s.trackLine(noWait, line)) }

// TrackLineContext is [Sink.TrackLineContext] for this source.
func (s *Source) TrackLineContext(ctx context.Context, line []byte) error {
	return s.countRejection(s.trackLine(ctx, line))
}

// Flush is [Sink.Flush] for the events of this source, including events of
// previous runs.
func (s *Source) Flush(ctx context.Context) error { return s.sink.flush(ctx, s) }

// Sync is [Sink.Sync]: one fsync writes the events of every source.
func (s *Source) Sync(ctx context.Context) error { return s.sink.Sync(ctx) }

// countRejection counts a call that returns an error, and returns that error.
func (s *Source) countRejection(err error) error {
	if err != nil {
		s.sink.rejected.Add(1)
	}
	return err
}

func (s *Source) track(ctx context.Context, event any) error {
	m := lineMakers.Get().(*lineMaker)
	defer m.release()
	received, err := s.sink.receivedAt(event)
	if err != nil {
		return err
	}
	line, err := m.line(event, received, s.sink.cfg.MaxEventBytes)
	if err != nil {
		return err
	}
	return s.add(ctx, line, received)
}

func (s *Source) trackLine(ctx context.Context, line []byte) error {
	line = bytes.TrimSuffix(line, newline)
	line = bytes.TrimSuffix(line, carriageReturn)
	if err := checkLine(line, s.sink.cfg.MaxEventBytes); err != nil {
		return err
	}
	if s.sink.byClock() {
		return s.add(ctx, line, time.Now())
	}
	received, err := s.sink.receivedAt(line)
	if err != nil {
		return err
	}
	return s.add(ctx, line, received)
}

// add appends a line to the open block. With noWait it does not wait for room.
// It waits without the source's lock.
func (s *Source) add(ctx context.Context, line []byte, received time.Time) error {
	b := s.sink.batcher
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), s.sink.cause())
	}
	if s.sink.cfg.Disabled {
		return b.countDisabled()
	}
	if err := s.sink.spoolReady(); err != nil {
		if b.isClosed() {
			return ErrClosed
		}
		s.sink.refusals.add(0, err)
		return err
	}
	var granted int64
	for {
		need, excess, err := s.tryAdd(line, received, granted)
		if excess {
			b.closeExcess()
		}
		if err == nil && need == 0 {
			return s.sink.awaitDurable(ctx)
		}
		if err != nil {
			return err
		}
		if ctx == noWait {
			b.relieve()
			err := s.sink.noRoom()
			s.sink.refusals.add(need, err)
			return err
		}
		release := s.sink.uploader.Urgent(upload.ForRoom)
		err = b.budget.Take(ctx, need) // calls relieve if it must wait
		release()
		if err != nil {
			if errors.Is(err, budget.ErrClosed) {
				return ErrClosed
			}
			s.sink.refusals.add(need, s.sink.noRoom())
			return errors.Join(err, s.sink.cause())
		}
		granted = need
		if s.sink.byClock() {
			received = time.Now() // lines that other callers added meanwhile come first
		}
	}
}

// tryAdd adds the line if the bytes that it needs are granted or free, and
// returns the missing bytes otherwise. It uses up the grant or returns it to the
// budget.
func (s *Source) tryAdd(line []byte, received time.Time, granted int64) (need int64, excess bool, err error) {
	b := s.sink.batcher
	s.mu.Lock()
	defer s.mu.Unlock()
	received = received.Round(0) // drop the monotonic reading: days follow the wall clock
	if s.sink.byClock() && received.Before(s.latest) && s.latest.Sub(received) < clockNoise {
		received = s.latest
	}
	p := s.partition(received)
	if p.block != nil && b.full(p.block.raw+len(line)+1) {
		s.cut(p)
	}
	room := p.block.bytesFor(len(line) + 1)
	if need := s.reserve(room, granted); need > 0 {
		return need, false, nil
	}
	if p.block == nil {
		var ok bool
		if excess, ok = b.openBlock(p, room); !ok {
			b.budget.Give(room)
			return 0, false, ErrClosed
		}
	} else if room > 0 {
		b.hold(p.block, room)
	}
	if room > 0 {
		p.held.Add(room)
		b.relieveIfShort()
	}
	s.makeCurrent(p)
	s.latest = received
	p.block.add(line, received)
	s.markDirty()
	if most := b.lim.object.Events; most > 0 {
		// Cut the block where its object reaches MaxObjectEvents, and before
		// the block alone exceeds it.
		if p.events.Add(1)%most == 0 || p.block.events.Load() >= most {
			s.cut(p)
		}
	}
	return 0, excess, nil
}

// markDirty records that the source has unstaged lines. The caller holds s.mu.
func (s *Source) markDirty() {
	b := s.sink.batcher
	if b.journal == nil || s.dirty {
		return
	}
	s.dirty = true
	b.mu.Lock()
	b.dirty = append(b.dirty, s)
	b.mu.Unlock()
	b.journal.MarkDirty()
}

// reserve takes room from the grant, or from the budget. If neither suffices it
// returns the grant to the budget and reports the missing bytes.
func (s *Source) reserve(room, granted int64) (need int64) {
	b := s.sink.batcher
	if granted >= room { // usually both are 0
		b.budget.Give(granted - room)
		return 0
	}
	b.budget.Give(granted)
	if b.budget.TryTake(room) {
		return 0
	}
	return room
}

// partition returns the open partition of the day of received, or a new
// partition, which openBlock registers with its first block.
func (s *Source) partition(received time.Time) *partition {
	if s.current != nil && sameDay(received, s.current.day) {
		return s.current
	}
	day := received.UTC().Truncate(24 * time.Hour)
	for _, p := range s.parts {
		if p.day.Equal(day) {
			return p
		}
	}
	return &partition{source: s, day: day}
}

func sameDay(t, day time.Time) bool {
	sec := t.Unix() - day.Unix()
	return sec >= 0 && sec < 24*60*60
}

// makeCurrent makes p the current partition. It cuts the open block of the
// previous current partition, which keeps the order of keys across days:
//
//  1. Source A has an open block of Monday. After midnight, lines go to a block
//     of Tuesday.
//  2. The block of Tuesday is cut first, and its segment gets the first key.
//  3. The block of Monday gets a later key, although its events are older.
//
// If the clock goes back to Monday, the new lines go to a new object after
// that of Tuesday (interrupted). With Config.ReceivedAt days alternate, and only
// the order within each day is kept.
func (s *Source) makeCurrent(p *partition) {
	if p == s.current {
		return
	}
	if s.current != nil && s.sink.byClock() {
		s.cut(s.current)
		s.current.interrupted = true
	}
	s.current = p
	if !slices.Contains(s.parts, p) {
		s.parts = append(s.parts, p)
	}
}

// removePartition removes a sealed partition.
func (s *Source) removePartition(p *partition) {
	s.parts = slices.DeleteFunc(s.parts, func(q *partition) bool { return q == p })
	if s.current == p {
		s.current = nil
	}
}

// cut closes the open block of p, if any. The caller holds s.mu.
func (s *Source) cut(p *partition) {
	if p.block == nil {
		return
	}
	b := s.sink.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cutLocked(p.block)
	p.block = nil
}

// cutBlock closes the open block of p and queues it for compression, which also
// writes it to the spool.
func (s *Source) cutBlock(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut(p)
}

// seal seals p and removes it from the open partitions.
func (s *Source) seal(p *partition, why SealReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sink.batcher.seal(p, why)
	s.removePartition(p)
}

// expire seals p when its object has reached MaxObjectAge. If that object was
// sealed for another reason meanwhile, the timer is set for the younger one.
func (s *Source) expire(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.sealed {
		return
	}
	if left := s.sink.batcher.untilDue(p); left > 0 {
		p.age.Reset(left)
		return
	}
	s.sink.batcher.seal(p, SealedByAge)
	s.removePartition(p)
}

// sources finds the Source of an id. Its references are weak. Callers, open
// partitions and pending blocks keep their Source alive, so goroutines that ask
// for the same id share one order of events. A million ids that were used once
// use no memory.
type sources struct {
	mu   sync.Mutex
	byID map[string]weak.Pointer[Source]
}

func newSources() *sources { return &sources{byID: map[string]weak.Pointer[Source]{}} }

func (r *sources) get(sink *Sink, id string) *Source {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.byID[id].Value(); s != nil {
		return s
	}
	s := &Source{sink: sink, id: id}
	r.byID[id] = weak.Make(s)
	runtime.AddCleanup(s, r.forget, id)
	return s
}

func (r *sources) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.byID[id]; ok && p.Value() == nil {
		delete(r.byID, id)
	}
}
