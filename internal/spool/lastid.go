package spool

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/s3sink/s3sink/internal/vfs"
)

// The journal records the last id that was drawn for keys and runs. So the ids
// of the next run are greater, even if the clock was set back:
//
//   1. Run 1 draws ids from a clock that is an hour ahead, and delivers
//      everything.
//   2. The clock is corrected, and run 2 draws ids.
//   3. By the clock alone they would be less than those of run 1, and objects
//      would sort in the wrong order.
//
// A group records the last id if it has risen since the file's previous record
// of it. Before the last file with that id is removed, the id is written to the
// directory's note.

const notePrefix = "last-id "

func writeNote(dir vfs.Dir, id uint64) error {
	return dir.SetNote(fmt.Appendf(nil, "%s%016x", notePrefix, id))
}

// readNote returns the id in the note, or 0 if there is none.
func readNote(dir vfs.Dir) (uint64, error) {
	note, err := dir.Note()
	if err != nil {
		return 0, fmt.Errorf("read the last id: %w", err)
	}
	digits, ok := strings.CutPrefix(string(note), notePrefix)
	if !ok {
		return 0, nil
	}
	id, err := strconv.ParseUint(digits, 16, 64)
	if err != nil {
		return 0, nil
	}
	return id, nil
}
