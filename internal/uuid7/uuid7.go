// Package uuid7 generates version 7 UUIDs (RFC 9562) that rise within a process, so
// that keys sort in the order of their generation.
package uuid7

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"
)

// Len is the length of a UUID as text.
const Len = 36

var clock struct {
	sync.Mutex
	last uint64 // 48 bits of milliseconds, then a 12-bit counter
}

// Source generates UUIDs that are also greater than all UUIDs of previous runs: Raise
// sets the lower bound. So keys rise from one process to the next even if the clock
// goes back in between. Its zero value is ready. It is safe for concurrent use.
type Source struct {
	// Now is the clock; nil means the system's.
	Now func() time.Time

	mu   sync.Mutex
	last uint64
}

// New returns a UUID greater than all earlier UUIDs of this source and, unless the
// source has its own clock, of this process. While the clock is behind the last
// UUID, New keeps that UUID's time and counts up.
func (s *Source) New() string {
	var random [10]byte
	rand.Read(random[:])
	counter := binary.BigEndian.Uint16(random[8:])
	var ticks uint64
	if s.Now == nil {
		ticks = tick(time.Now(), counter)
	} else {
		ticks = ticksAt(s.Now(), counter)
	}
	s.mu.Lock()
	ticks = max(ticks, s.last+1)
	s.last = ticks
	s.mu.Unlock()
	return build(ticks, random)
}

// Last returns the time and counter of the last UUID, or the argument of a later
// Raise if that is greater.
func (s *Source) Last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Raise makes the next UUIDs greater than a UUID whose Last, of this source or
// another one, was last.
func (s *Source) Raise(last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, last)
}

// New returns a UUID greater than all earlier UUIDs of this process, even if the
// clock stands still or goes back. It reads no random bytes in advance: two copies
// of an idle process that resume from one snapshot generate different UUIDs.
func New() string {
	var random [10]byte
	rand.Read(random[:]) // never fails, see its documentation
	return build(tick(time.Now(), binary.BigEndian.Uint16(random[8:])), random)
}

func build(ticks uint64, random [10]byte) string {
	var u [16]byte
	binary.BigEndian.PutUint64(u[:], ticks>>12<<16|0x7000|ticks&0xfff)
	copy(u[8:], random[:8])
	u[8] = u[8]&0x3f | 0x80
	return text(u)
}

// tick returns 48 bits of milliseconds and 12 bits of a counter. In each
// millisecond the counter starts at a random value in the lower half of its range.
// It overflows into the next millisecond.
func tick(now time.Time, random uint16) uint64 {
	clock.Lock()
	defer clock.Unlock()
	fresh := ticksAt(now, random)
	if fresh>>12 <= clock.last>>12 {
		fresh = clock.last + 1
	}
	clock.last = fresh
	return fresh
}

func ticksAt(now time.Time, random uint16) uint64 {
	return uint64(now.UnixMilli())<<12 | uint64(random&0x7ff)
}

func text(u [16]byte) string {
	b := make([]byte, 0, Len)
	for i, part := range [][]byte{u[:4], u[4:6], u[6:8], u[8:10], u[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return string(b)
}
