package policy

import "strings"

// account returns the account of p.Of, or "" if p.Of does not contain it: ARNs of
// buckets do not.
func (p Policy) account() string {
	if parts := strings.Split(p.Of, ":"); len(parts) > 4 {
		return parts[4]
	}
	return ""
}

// principalAccount returns the account of the role or user that the policy of a
// bucket or key allows.
func (p Policy) principalAccount() string {
	return strings.Split(p.Document.Statement[0].Principal["AWS"], ":")[4]
}

// inSeveralAccounts reports whether one account cannot set all policies up.
func (s Set) inSeveralAccounts() bool {
	seen := map[string]bool{}
	for _, p := range s {
		if p.Kind == BucketPolicy { // the bucket is in another account than the writer
			return true
		}
		if account := p.account(); account != "" {
			seen[account] = true
		}
	}
	return len(seen) > 1
}

// name returns the name under which the policy is attached to its role or user.
func (p Policy) name() string {
	if p.Document.Statement[0].Action[0] == "sts:AssumeRole" {
		return "s3sink-assume-role"
	}
	return "s3sink-write"
}

// principal is an IAM role or user.
type principal struct{ kind, path, name string }

// parsePrincipal returns the zero principal for text that is not the ARN of a
// role or user.
func parsePrincipal(arn string) principal {
	if !principalARN.MatchString(arn) {
		return principal{}
	}
	kind, rest, _ := strings.Cut(strings.Split(arn, ":")[5], "/")
	name := strings.LastIndexByte(rest, '/') + 1
	return principal{kind: kind, path: "/" + rest[:name], name: rest[name:]}
}

func bucketName(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

// eachLine prefixes each line of text with before.
func eachLine(before, text string) string {
	return before + strings.ReplaceAll(text, "\n", "\n"+before) + "\n"
}
