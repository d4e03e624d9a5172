//go:build !linux

package main

import (
	"os"
	"runtime"
	"time"
)

// On other systems the page cache stays warm and the kernel's counters are 0.

func peakOf(*os.ProcessState) int64    { return 0 }
func resident() int64                  { return 0 }
func written() int64                   { return 0 }
func processorTime() time.Duration     { return 0 }
func openFiles() int                   { return 0 }
func dataSync(f *os.File) error        { return f.Sync() }
func processor() string                { return runtime.GOARCH }
func load() string                     { return "unknown" }
func kernel() string                   { return runtime.GOOS }
func fileSystem(string) (string, bool) { return "an unknown file system", false }

func dropCache(string, bool) (string, error) { return "warm, because dropping it needs Linux", nil }
