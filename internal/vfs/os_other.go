//go:build !linux && !darwin

package vfs

import (
	"errors"
	"os"
)

func syncFile(f *os.File) error { return f.Sync() }

func fileSystem(*os.File) (FileSystem, error) { return FileSystem{}, nil }

func pidNamespace() string { return "" }

func freeBytes(*os.File) (int64, error) { return 0, errors.ErrUnsupported }
