// SPDX-License-Identifier: GPL-3.0-or-later

//go:build tools

// Package tools pins the S3 server of the lab: go.sum fixes the content of every module in the build,
// so that a binary built here is made from the sources that were reviewed, wherever it is built.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
