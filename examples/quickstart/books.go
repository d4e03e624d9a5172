package main

import (
	"hash/maphash"
	"maps"
	"slices"
)

// books holds an account for every source id.
type books map[string]*account

// account is what went in and what came out for one source.
type account struct {
	id      func(line []byte) []byte // the part of a line that is compared
	compare string                   // the same in words
	in, out tally
}

func (b books) open(source, compare string, id func(line []byte) []byte) *account {
	b[source] = &account{id: id, compare: compare}
	return b[source]
}

func (b books) sources() []string { return slices.Sorted(maps.Keys(b)) }

// totals returns how many events went in and came out, and whether they are
// the same events.
func (b books) totals() (in, out int64, same bool) {
	same = true
	for _, a := range b {
		in += a.in.events
		out += a.out.events
		same = same && a.in == a.out
	}
	return in, out, same
}

// tally stands for any number of events in any order, because objects are
// uploaded and listed in an order of their own: the sum of hashes changes when
// an event is lost, doubled or altered, and not when two change places.
type tally struct {
	events int64
	sum    uint64
}

var seed = maphash.MakeSeed()

func (t *tally) add(id []byte) {
	t.events++
	t.sum += maphash.Bytes(seed, id)
}

// wholeLine is the identity of a line that the sink stores as it is.
func wholeLine(line []byte) []byte { return line }
