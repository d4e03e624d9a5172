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

// Source takes the events of one source id. All sources of a sink share its
// memory, its uploads and its bucket. A Source is safe for concurrent use; it
// is not closed, and one that nobody holds any more costs nothing.
type Source struct {
	sink *Sink
	id   string

	mu      sync.Mutex
	parts   []*partition // open, of different days
	current *partition   // that took the last line
	latest  time.Time    // when it was received, by the wall clock
	dirty   bool         // has lines that a crash would lose

	queue []*block // cut and not in a segment yet, in that order; under batcher.mu
}

var carriageReturn = []byte{'\r'}

// clockNoise is how far a clock may go back without a new object: goroutines
// read it before they get the lock, so near midnight times come out of order.
const clockNoise = time.Minute

// noWait is the context of those who do not wait for room.
var noWait context.Context = neverWait{context.Background()}

type neverWait struct{ context.Context }

// ID returns the source id.
func (s *Source) ID() string { return s.id }

// Track is [Sink.Track] for this source.
func (s *Source) Track(event any) error { return s.counted(s.track(noWait, event)) }

// TrackContext is [Sink.TrackContext] for this source.
func (s *Source) TrackContext(ctx context.Context, event any) error {
	return s.counted(s.track(ctx, event))
}

// TrackLine is [Sink.TrackLine] for this source.
func (s *Source) TrackLine(line []byte) error { return s.counted(s.trackLine(noWait, line)) }

// TrackLineContext is [Sink.TrackLineContext] for this source.
func (s *Source) TrackLineContext(ctx context.Context, line []byte) error {
	return s.counted(s.trackLine(ctx, line))
}

// Flush is [Sink.Flush] for the events of this source, those of earlier runs
// included.
func (s *Source) Flush(ctx context.Context) error { return s.sink.flush(ctx, s) }

// Sync is [Sink.Sync]: one fsync writes the events of every source.
func (s *Source) Sync(ctx context.Context) error { return s.sink.Sync(ctx) }

// counted passes on what became of a call.
func (s *Source) counted(err error) error {
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

// add puts a line into the open block. With noWait it does not wait for room.
// The source's lock is not held while it waits.
func (s *Source) add(ctx context.Context, line []byte, received time.Time) error {
	b := s.sink.batcher
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), s.sink.cause())
	}
	if s.sink.cfg.Disabled {
		return b.discard()
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
			return s.sink.durable(ctx)
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
		err = b.budget.Take(ctx, need) // it relieves
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
			received = time.Now() // it was a while; for order, those who came since are before it
		}
	}
}

// tryAdd adds the line unless that needs more of the budget than is granted
// or free; then it returns how much. The grant is used up or given back.
func (s *Source) tryAdd(line []byte, received time.Time, granted int64) (need int64, excess bool, err error) {
	b := s.sink.batcher
	s.mu.Lock()
	defer s.mu.Unlock()
	received = received.Round(0) // what counts is the wall clock
	if s.sink.byClock() && received.Before(s.latest) && s.latest.Sub(received) < clockNoise {
		received = s.latest
	}
	p := s.partition(received)
	if p.block != nil && b.full(p.block.raw+len(line)+1) {
		s.cut(p)
	}
	room := p.block.room(len(line) + 1)
	if need := s.pay(room, granted); need > 0 {
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
	s.enter(p)
	s.latest = received
	p.block.add(line, received)
	s.soil()
	if most := b.lim.object.Events; most > 0 {
		// Where an object would be full by events it ends with this block,
		// and no block is more than an object.
		if p.events.Add(1)%most == 0 || p.block.events.Load() >= most {
			s.cut(p)
		}
	}
	return 0, excess, nil
}

// soil notes that the source has lines that the journal does not.
func (s *Source) soil() {
	b := s.sink.batcher
	if b.journal == nil || s.dirty {
		return
	}
	s.dirty = true
	b.mu.Lock()
	b.dirty = append(b.dirty, s)
	b.mu.Unlock()
	b.journal.Dirty()
}

// pay takes room from the grant and the budget, or gives the grant back and
// returns what is missing.
func (s *Source) pay(room, granted int64) (need int64) {
	b := s.sink.batcher
	if granted >= room { // nearly always both are 0
		b.budget.Give(granted - room)
		return 0
	}
	b.budget.Give(granted)
	if b.budget.TryTake(room) {
		return 0
	}
	return room
}

// partition returns the open partition of the day of received, or a new one,
// which is not open before it has a block.
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

// enter makes p the current partition. The block of the one before is cut, so
// that its lines come to a segment, and so to a key, before those of p; and
// should the clock bring its day back, they go to a new object behind p's. Where
// events bring their own times, days take turns, and there is order within each
// alone.
func (s *Source) enter(p *partition) {
	if p == s.current {
		return
	}
	if s.current != nil && s.sink.byClock() {
		s.cut(s.current)
		s.current.later = true
	}
	s.current = p
	if !slices.Contains(s.parts, p) {
		s.parts = append(s.parts, p)
	}
}

// leave takes a sealed partition off.
func (s *Source) leave(p *partition) {
	s.parts = slices.DeleteFunc(s.parts, func(q *partition) bool { return q == p })
	if s.current == p {
		s.current = nil
	}
}

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

// cutOpen hands the open block to the compressors, and with that to the spool.
func (s *Source) cutOpen(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut(p)
}

func (s *Source) seal(p *partition, why SealReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sink.batcher.seal(p, why)
	s.leave(p)
}

// expire seals p when its object is old enough. An object that was closed by
// size meanwhile has made room for a younger one.
func (s *Source) expire(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.sealed {
		return
	}
	if left := s.sink.batcher.due(p); left > 0 {
		p.age.Reset(left)
		return
	}
	s.sink.batcher.seal(p, SealedByAge)
	s.leave(p)
}

// sources finds the Source of an id. It holds them weakly: open partitions and
// blocks under way keep theirs, and so do callers, so two goroutines that ask
// for one id share its order; and a million ids seen once leave nothing.
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
