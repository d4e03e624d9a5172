package main

import (
	"strings"
	"testing"
)

// Given arguments of a command line, when the program runs, then its exit code and
// the stream of its output match the table.
func TestRun_Arguments(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args           []string
		code           int
		stdout, stderr string // what the stream has; "": nothing
	}{
		"none":                   {nil, 2, "", "  setup "},
		"help":                   {[]string{"help"}, 0, "  setup ", ""},
		"-h":                     {[]string{"-h"}, 0, "  setup ", ""},
		"help of a subcommand":   {[]string{"help", "setup"}, 0, "-external-id", ""},
		"-h of a subcommand":     {[]string{"setup", "-h"}, 0, "-external-id", ""},
		"subcommand":             {[]string{"setup", "-bucket", "acme-events", "-print", "json"}, 0, "acme-events/segment-logs/*", ""},
		"wrong flag":             {[]string{"setup", "-secret"}, 2, "", "s3sink setup: flag provided"},
		"unknown subcommand":     {[]string{"set-up"}, 2, "", `s3sink: no subcommand "set-up"; s3sink help`},
		"help of an unknown one": {[]string{"help", "set-up"}, 2, "", `s3sink: no subcommand "set-up"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr strings.Builder
			code := run(t.Context(), tt.args, &stdout, &stderr)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for got, want := range map[*strings.Builder]string{&stdout: tt.stdout, &stderr: tt.stderr} {
				if !strings.Contains(got.String(), want) || want == "" && got.Len() > 0 {
					t.Errorf("%q in a stream, want %q", got, want)
				}
			}
		})
	}
}
