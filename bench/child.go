package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// childVariable is the environment variable that makes this program, or its
// test binary, a child process. Its value is the role of the child.
const childVariable = "S3SINK_BENCH_CHILD"

// role is the work of a child process. It reads its job from the decoder and
// returns its result.
type role func(context.Context, *json.Decoder) (any, error)

// roles holds the roles by name. A child reads its job as JSON from standard
// input and writes its result as JSON to standard output.
var roles = map[string]role{
	"fill":     newRole(fill),
	"read":     newRole(readFiles),
	"recover":  newRole(reopen),
	"drain":    newRole(drain),
	"sources":  newRole(trackSources),
	"pipeline": newRole(pipeline),
	"each":     newRole(trackEach),
	"consume":  newRole(consume),
}

func newRole[J, R any](do func(context.Context, J) (R, error)) role {
	return func(ctx context.Context, in *json.Decoder) (any, error) {
		var job J
		if err := in.Decode(&job); err != nil {
			return nil, err
		}
		return do(ctx, job)
	}
}

// child runs one role and returns the exit code of the child process. It closes
// no sink: a process that ends without Close is part of the measurements.
func child(name string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	result, err := roles[name](ctx, json.NewDecoder(os.Stdin))
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// runChild runs one role in a child process. peak is the peak resident memory
// of the child in bytes, as the kernel reports it to the parent. On Linux that
// is at least the resident memory of the parent at the start of the child. The
// parent therefore stays small: children do all work that needs memory.
func runChild[R any](ctx context.Context, role string, job any) (result R, peak int64, err error) {
	self, err := os.Executable()
	if err != nil {
		return result, 0, err
	}
	input, err := json.Marshal(job)
	if err != nil {
		return result, 0, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = []string{
		childVariable + "=" + role,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return result, 0, fmt.Errorf("%s: %w: %s", role, err, stderr.Bytes())
	}
	return result, peakOf(cmd.ProcessState), json.Unmarshal(stdout.Bytes(), &result)
}
