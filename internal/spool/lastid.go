package spool

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/s3sink/s3sink/internal/vfs"
)

// The journal remembers the last id that was drawn for keys and runs, so that those
// of the next run sort behind them although the clock went back:
//
//  1. Run 1 draws ids by a clock that is an hour ahead, and delivers everything.
//  2. The clock is set right, and run 2 draws ids.
//  3. By the clock alone they would be less than those of run 1.
//
// A group says the last id if the groups before it in its file do not. When the
// last file that does is removed, the directory's note says it.

const notePrefix = "last-id "

func writeNote(dir vfs.Dir, id uint64) error {
	return dir.SetNote(fmt.Appendf(nil, "%s%016x", notePrefix, id))
}

// readNote returns the id of the note, or 0 if there is no such note.
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
