"""What every part uses: errors, files, collectives, arguments. No faces, Lightning or Hydra."""
