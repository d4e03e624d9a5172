//go:build !linux && !darwin

package vfs

import "os"

func syncFile(f *os.File) error { return f.Sync() }

func fileSystem(*os.File) (FileSystem, error) { return FileSystem{}, nil }

func pidNamespace() string { return "" }
