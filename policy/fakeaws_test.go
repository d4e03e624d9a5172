package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// fakeAWSState is the environment variable with the file of a [fakeAWS]. If it is
// set, the test binary acts as the command aws.
const fakeAWSState = "S3SINK_TEST_AWS_STATE"

// fakeAWS is a double of the AWS CLI and of AWS accounts, with the operations that
// the script of [policy.Set.CLI] uses. It returns policies as AWS does: S3 rewrites
// a bucket policy, IAM returns JSON, KMS returns the text.
type fakeAWS struct {
	Account   string            // of the caller
	Partition string            // of ARNs
	Roles     map[string]string // ARN by name
	Policies  map[string]string // "trust ROLE", "role ROLE POLICY", "user USER POLICY", "bucket NAME", "key ARN"
	Fail      map[string]string // error code by operation, such as "get-role"
	Writes    []string          // operations that changed the state
}

// awsError is an error answer of AWS.
type awsError struct{ code, operation string }

func (e awsError) Error() string {
	return fmt.Sprintf("\nAn error occurred (%s) when calling the %s operation: refused by the test", e.code, e.operation)
}

func fakeAWSMain(file string, args []string) (exit int) {
	var a fakeAWS
	if err := readJSON(file, &a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	out, err := a.run(args)
	if err == nil {
		err = writeJSON(file, a)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 254 // the exit code of the CLI for errors of AWS
	}
	if len(a.Writes) > 0 { // like a warning of Python on stderr, which is not part of an answer
		fmt.Fprintln(os.Stderr, "DeprecationWarning: something is old")
	}
	fmt.Println(out)
	return 0
}

func readJSON(file string, v any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// run runs one command and returns the output of the CLI. An unknown or a missing
// option is an error.
func (a *fakeAWS) run(args []string) (string, error) {
	if len(args) < 2 {
		return "", fmt.Errorf("usage: aws SERVICE OPERATION, not %q", args)
	}
	operation, options := args[1], map[string]string{}
	for rest := args[2:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) < 2 || !strings.HasPrefix(rest[0], "--") {
			return "", fmt.Errorf("bad options %q", args[2:])
		}
		options[rest[0]] = rest[1]
	}
	if code := a.Fail[operation]; code != "" {
		return "", awsError{code, operation}
	}
	missing := func(code string) error { return awsError{code, operation} }
	// with returns the values of the named options. Each must be given, and no
	// others.
	with := func(names ...string) []string {
		var values []string
		for _, name := range names {
			value, ok := options["--"+name]
			if !ok || len(options) != len(names) {
				panic(fmt.Sprintf("%s %s: options %q, want %q", args[0], operation, slices.Sorted(maps.Keys(options)), names))
			}
			values = append(values, value)
		}
		return values
	}
	read := func(name, code, query, output string) (string, error) {
		if options["--query"] != query || options["--output"] != output {
			return "", fmt.Errorf("%s: query %q, output %q", operation, options["--query"], options["--output"])
		}
		policy, ok := a.Policies[name]
		if !ok {
			return "", missing(code)
		}
		return policy, nil
	}
	write := func(name, policy string, stored func(any) string) (string, error) {
		var document map[string]any
		if err := json.Unmarshal([]byte(policy), &document); err != nil || !uniqueSids(document) {
			code := map[string]string{"iam": "MalformedPolicyDocument", "s3api": "MalformedPolicy", "kms": "MalformedPolicyDocumentException"}[args[0]]
			return "", awsError{code, operation}
		}
		a.Policies[name] = policy
		if stored != nil {
			a.Policies[name] = stored(document)
		}
		a.Writes = append(a.Writes, operation+" "+name)
		return "{}", nil
	}
	switch service := args[0] + " " + operation; service {
	case "sts get-caller-identity":
		with("query", "output")
		return a.Account, nil
	case "iam get-role":
		o := with("role-name", "query", "output")
		arn, ok := a.Roles[o[0]]
		switch {
		case !ok:
			return "", missing("NoSuchEntity")
		case o[1] == "Role.Arn" && o[2] == "text":
			return arn, nil
		}
		return read("trust "+o[0], "NoSuchEntity", "Role.AssumeRolePolicyDocument", "json")
	case "iam create-role":
		o := with("role-name", "path", "assume-role-policy-document")
		if a.Roles[o[0]] != "" {
			return "", missing("EntityAlreadyExists")
		}
		out, err := write("trust "+o[0], o[2], indented)
		if err == nil {
			a.Roles[o[0]] = "arn:" + a.Partition + ":iam::" + a.Account + ":role" + o[1] + o[0]
		}
		return out, err
	case "iam update-assume-role-policy":
		o := with("role-name", "policy-document")
		if a.Roles[o[0]] == "" {
			return "", missing("NoSuchEntity")
		}
		return write("trust "+o[0], o[1], indented)
	case "iam get-role-policy", "iam get-user-policy":
		kind := strings.Split(operation, "-")[1]
		o := with(kind+"-name", "policy-name", "query", "output")
		return read(kind+" "+o[0]+" "+o[1], "NoSuchEntity", "PolicyDocument", "json")
	case "iam put-role-policy", "iam put-user-policy":
		kind := strings.Split(operation, "-")[1]
		o := with(kind+"-name", "policy-name", "policy-document")
		if kind == "role" && a.Roles[o[0]] == "" {
			return "", missing("NoSuchEntity")
		}
		return write(kind+" "+o[0]+" "+o[1], o[2], indented)
	case "s3api get-bucket-policy":
		return read("bucket "+with("bucket", "query", "output")[0], "NoSuchBucketPolicy", "Policy", "text")
	case "s3api put-bucket-policy":
		o := with("bucket", "policy")
		return write("bucket "+o[0], o[1], func(v any) string { return compact(scalars(v)) })
	case "kms get-key-policy":
		o := with("key-id", "region", "policy-name", "query", "output")
		return read("key "+o[0], "NotFoundException", "Policy", "text")
	case "kms put-key-policy":
		o := with("key-id", "region", "policy-name", "policy")
		return write("key "+o[0], o[3], nil)
	}
	return "", errors.New("no such command: " + strings.Join(args[:2], " "))
}

func uniqueSids(document map[string]any) bool {
	statements, ok := document["Statement"].([]any)
	seen := map[any]bool{}
	for _, s := range statements {
		if sid := s.(map[string]any)["Sid"]; sid != nil {
			ok = ok && !seen[sid]
			seen[sid] = true
		}
	}
	return ok
}

// scalars replaces lists of one value by the value, as S3 does.
func scalars(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			if name != "Statement" {
				v[name] = scalars(v[name])
				continue
			}
			for i, s := range v[name].([]any) {
				v[name].([]any)[i] = scalars(s)
			}
		}
	case []any:
		if len(v) == 1 {
			return v[0]
		}
		slices.Reverse(v)
	}
	return v
}

// compact returns v as JSON in one line, with & < > escaped as some servers do.
func compact(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func indented(v any) string {
	text, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		panic(err)
	}
	return string(text)
}
