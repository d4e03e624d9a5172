package s3sink

import (
	"encoding/json"
	"strings"
)

// Policy is an IAM policy document.
type Policy struct {
	Version   string
	Statement []Statement
}

// Statement is one statement of a [Policy].
type Statement struct {
	Sid       string `json:",omitempty"`
	Effect    string
	Principal map[string]string `json:",omitempty"` // of policies that belong to a resource
	Action    []string
	Resource  []string                       `json:",omitempty"`
	Condition map[string]map[string][]string `json:",omitempty"`
}

// String returns the document as indented JSON.
func (p Policy) String() string { return encode(p, "  ") }

// compact returns the document without spaces: STS counts them.
func (p Policy) compact() string { return encode(p, "") }

func (s Statement) String() string { return encode(s, "") }

func encode(document any, indent string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(document); err != nil {
		return "" // strings always encode
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func allow(statements ...Statement) Policy {
	for i := range statements {
		statements[i].Effect = "Allow"
	}
	return Policy{Version: "2012-10-17", Statement: statements}
}

// viaS3 are the names of S3 in kms:ViaService, in every partition.
var viaS3 = []string{"s3.*.amazonaws.com", "s3.*.amazonaws.com.cn"}

// writePolicy is the session policy of the role that writes: what the sink
// does, and nothing else the role may do. A session policy can only take
// away, so it must grant the key's use too: without it a bucket that encrypts
// with a KMS key would refuse every object.
//
// It allows uploads to the folder of the key format, and to others.
func (c *Config) writePolicy(partition string, others ...string) Policy {
	put := c.putStatement(partition)
	put.Resource = nil
	for _, folder := range outermost(append(others, c.folder())) {
		put.Resource = append(put.Resource, c.objects(partition, folder))
	}
	statements := []Statement{put}
	if c.Encryption.algorithm != "AES256" {
		statements = append(statements, c.keyStatement())
	}
	return allow(statements...)
}

// putStatement allows uploads, to the folder of the key format.
func (c *Config) putStatement(partition string) Statement {
	actions := []string{"s3:PutObject"}
	if c.ACL != "" {
		actions = append(actions, "s3:PutObjectAcl")
	}
	if len(c.Tags) > 0 {
		actions = append(actions, "s3:PutObjectTagging")
	}
	return Statement{
		Action:   actions,
		Resource: []string{c.objects(partition, c.folder())},
	}
}

// objects is the resource of all objects in a folder of the bucket.
func (c *Config) objects(partition, folder string) string {
	bucket, _ := c.place()
	return "arn:" + partition + ":s3:::" + bucket + "/" + literal(folder) + "*"
}

// keyStatement allows the use of the configured key, or where the bucket
// decides which it is, of any key through S3. An alias or a bare id does not
// say in which account the key is, and policies match neither.
func (c *Config) keyStatement() Statement {
	key := c.Encryption.key
	if !strings.HasPrefix(key, "arn:") || strings.Contains(key, ":alias/") {
		key = "*"
	}
	return Statement{
		Action:    []string{"kms:GenerateDataKey", "kms:Decrypt"},
		Resource:  []string{key},
		Condition: map[string]map[string][]string{"StringLike": {"kms:ViaService": viaS3}},
	}
}

// hopPolicy is the session policy of a role that only assumes the next one.
func hopPolicy(next string) Policy {
	return allow(Statement{Action: []string{"sts:AssumeRole"}, Resource: []string{literal(next)}})
}

// literal writes text so that a policy takes no character of it for a wild
// card or a variable. IAM takes no document with characters beyond U+00FF, so
// there a wild card is all one can write.
func literal(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case strings.ContainsRune("*?$", r):
			b.WriteString("${" + string(r) + "}")
		case r > 0xff:
			b.WriteByte('*')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// folder returns the folder that every key of the Config is in, the prefix too.
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
