package main

import (
	"hash/maphash"
	"maps"
	"slices"
)

// ledger holds an account for every source id.
type ledger map[string]*account

// account compares the sent and the downloaded events of one source.
type account struct {
	id      func(line []byte) []byte // the part of a line that is compared
	compare string                   // describes id in the report
	in, out tally                    // sent and downloaded events
}

// open adds the account of a source.
func (l ledger) open(source, compare string, id func(line []byte) []byte) *account {
	l[source] = &account{id: id, compare: compare}
	return l[source]
}

func (l ledger) sources() []string { return slices.Sorted(maps.Keys(l)) }

// totals returns the number of sent and downloaded events, and whether they are
// the same events.
func (l ledger) totals() (in, out int64, same bool) {
	same = true
	for _, a := range l {
		in += a.in.events
		out += a.out.events
		same = same && a.in == a.out
	}
	return in, out, same
}

// tally is a fingerprint of a set of events. The sum of their hashes changes
// when an event is lost, repeated or altered. It does not depend on the order
// of the events, because objects are not uploaded and listed in the order of
// the calls.
type tally struct {
	events int64
	sum    uint64 // of the hashes
}

var seed = maphash.MakeSeed()

func (t *tally) add(id []byte) {
	t.events++
	t.sum += maphash.Bytes(seed, id)
}

// wholeLine is the id of an account whose lines the sink stores unchanged.
func wholeLine(line []byte) []byte { return line }
