package s3sink

import (
	"errors"
	"slices"
	"strings"

	"github.com/s3sink/s3sink/policy"
)

// Policies returns the AWS policies for a sink with this Config. They allow only the
// actions that the sink uses, on the folder that it writes to. in holds the facts
// that a Config does not contain. Policies makes no request. Its error joins a
// [*ConfigError] for every field of the Config that New would refuse, and a
// [*policy.InputError] for every wrong field of in.
func (c Config) Policies(in policy.Input) (policy.Set, error) {
	if err := errors.Join(c.Check(), in.Check()); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	return policy.For(c.policyFacts(), in)
}

// policyFacts returns the facts of the Config on which policies depend.
func (c *Config) policyFacts() policy.Sink {
	bucket, _ := c.place()
	facts := policy.Sink{
		Bucket:     bucket,
		Folder:     c.folder(),
		Partition:  c.partition(),
		Encryption: c.Encryption.algorithm,
		KMSKey:     c.Encryption.key,
		SetsACL:    c.ACL != "",
		SetsTags:   len(c.Tags) > 0,
	}
	for r, ok := c.Credentials.(role); ok; r, ok = r.base.(role) {
		facts.Roles = append(facts.Roles, policy.Role{ARN: r.arn, ExternalID: r.externalID})
	}
	slices.Reverse(facts.Roles) // the role that writes is the outermost one
	return facts
}

// folder returns the folder that every key of the Config is in, with the prefix.
func (c *Config) folder() string {
	_, prefix := c.place()
	return prefix + c.KeyFormat.folder()
}

// folder returns the folder that every key of the format is in, with a slash at
// its end, or "".
func (f KeyFormat) folder() string {
	before, _, _ := strings.Cut(string(f), "{")
	return before[:strings.LastIndexByte(before, '/')+1]
}
