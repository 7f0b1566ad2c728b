"""Used by every part: errors, files, collectives, arguments. No faces, Lightning or Hydra."""
