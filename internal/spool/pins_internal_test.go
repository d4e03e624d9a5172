package spool

import (
	"reflect"
	"testing"
)

// Given a large and a small map of pins, then mergePins keeps the large one and
// copies only the small one, because Track may wait for it.
func TestMergePins_KeepsLargerMap(t *testing.T) {
	t.Parallel()
	f, g := &file{number: 1}, &file{number: 2}
	owners := func(of *file, ids ...uint64) map[uint64][]pin {
		all := map[uint64][]pin{}
		for _, id := range ids {
			all[id] = []pin{{file: of, records: 1}}
		}
		return all
	}
	for _, swap := range []bool{false, true} {
		many, few := owners(f, 1, 2, 3, 4, 5), owners(g, 5, 6)
		a, b := few, many
		if swap {
			a, b = many, few
		}
		got := mergePins(a, b)
		if reflect.ValueOf(got).Pointer() != reflect.ValueOf(many).Pointer() {
			t.Error("the larger map was copied")
		}
		if len(got) != 6 || len(got[5]) != 2 || len(got[1]) != 1 || got[1][0].file != f || got[6][0].file != g {
			t.Errorf("owners %v", got)
		}
	}
}
