//go:build !unix

package vfs

import (
	"io/fs"
	"os"
)

// openFlags open a file to read it, and to sync it: Windows flushes no file
// that was opened for reading alone.
const openFlags = os.O_RDWR

// syncDir does nothing: Windows has no such call, and NTFS logs the entry of a
// file before the file's own flush returns.
func syncDir(*os.File) error { return nil }

// checkAccess does nothing: access lists decide, and package os does not read
// them.
func checkAccess(string, fs.FileInfo) error { return nil }
